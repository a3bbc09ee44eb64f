"""The whole pipeline at smoke scale, for real: simulator, demonstrations, latents, trainings, rollouts, decision."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from world_modality.artifacts.files import read_json, tree_sha256
from world_modality.report.lineage import verify, walk

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
OPTIONS = ("E0", "E2", "E2-zero", "S0", "A")


def test_the_decision_names_its_token_scale_and_branch(smoke):
    text = (smoke / "results/decision.txt").read_text()
    token = text.splitlines()[0]
    assert re.fullmatch(r"VOID_BASELINE_TOO_WEAK|WORLD_HELPS_OR_NEUTRAL|ADOPT_WRIST|KEEP_BASELINE", token)
    assert re.match(r"(NON_INFERIOR|INFERIOR|INCONCLUSIVE)  E2 : E0  branch (success|wrist)  ", text.splitlines()[1])
    assert "Smoke scale" in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_option_is_evaluated_on_the_same_initial_states_and_seeds(smoke):
    episodes = {o: read_json(smoke / f"results/eval_{o}_0.json")["episodes"] for o in OPTIONS}
    keys = ("init_state_id", "init_state_sha256", "env_seed", "noise_seed", "train_seed")
    seen = {o: [tuple(e[k] for k in keys) for e in rows] for o, rows in episodes.items()}
    assert all(rows == seen["E0"] for rows in seen.values())
    assert len(seen["E0"]) == 2


def test_every_filmed_episode_has_a_video(smoke):
    for option in OPTIONS:
        videos = [e["video"] for e in read_json(smoke / f"results/eval_{option}_0.json")["episodes"] if e["video"]]
        assert videos
        assert all((smoke / video).stat().st_size > 1000 for video in videos)
        films = read_json(smoke / f"results/videos/{option}/task_0/films.json")
        assert {(film["file"], film["as_evaluated"]) for film in films} == {(Path(v).name, True) for v in videos}


def test_evaluated_states_are_never_trained_on(smoke):
    recorded = {
        state
        for path in (smoke / "results/demonstrations").glob("task_*/recording.json")
        for state in re.findall(r"[0-9a-f]{64}", path.read_text())
    }
    evaluated = {e["init_state_sha256"] for e in read_json(smoke / "results/eval_E0_0.json")["episodes"]}
    assert recorded
    assert not recorded & evaluated


def test_latents_follow_the_contract(smoke):
    for camera, key in (("front", "observation.images.image"), ("wrist", "observation.images.image2")):
        table = pq.read_table(smoke / f"results/latents_{camera}.parquet")
        assert table.column_names == ["index", "episode_index", "frame_index", "latent"]
        assert table["index"].to_pylist() == list(range(len(table)))
        assert key.encode() in b" ".join(table.schema.metadata.values())


def test_checkpoints_are_lerobot_pretrained_models(smoke):
    for option, kind in (("E0", "smolvla"), ("S0", "smolvla"), ("E2", "smolvla_world"), ("A", "smolvla_world")):
        folder = smoke / f"results/ckpt_{option}/seed_0"
        assert read_json(folder / "config.json")["type"] == kind
        for name in ("model.safetensors", "train_config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
            assert (folder / name).is_file(), name


def test_world_options_report_whether_their_world_path_is_active(smoke):
    for option in ("E2", "A"):
        world = read_json(smoke / f"results/eval_{option}_0.json")["world"]["seed_0"]
        assert {"gate", "action_change_rms", "world_loss", "copy_last"} <= set(world)
    assert read_json(smoke / "results/eval_E0_0.json")["world"] is None


def test_a_second_run_does_nothing(smoke, run_smoke):
    before = tree_sha256(smoke / "results")
    assert "Nothing to be done" in run_smoke(smoke, "all")
    assert tree_sha256(smoke / "results") == before


def test_episodes_do_not_depend_on_how_they_are_split_into_blocks(smoke):
    rows = [json.loads(line) for line in (smoke / "results/rollouts/E2/seed_0/task_0/block_0.jsonl").open()]
    print_spec = [sys.executable, REPOSITORY / "scripts/tools/print_spec.py", "rollout", "E2", "--configfile", SMOKE]
    spec = subprocess.run(print_spec, capture_output=True, text=True, check=True).stdout
    for row in reversed(rows):
        output = smoke / f"alone_{row['init_state_id']}.jsonl"
        command = [sys.executable, REPOSITORY / "scripts/evaluate_policy.py", "--checkpoint", "results/ckpt_E2/seed_0"]
        command += ["--task", "0", "--seed", "0", "--first", str(row["init_state_id"]), "--count", "1"]
        command += ["--init_states", "results/init_states/task_0/block_0.parquet", "--spec", spec]
        command += ["--output", output]
        tables = {kind: output.with_name(f"{output.stem}_{kind}.parquet") for kind in ("actions", "attention")}
        command += [word for kind, table in tables.items() for word in (f"--{kind}", table)]
        subprocess.run(command, cwd=smoke, check=True, capture_output=True)
        alone = json.loads(output.read_text())
        assert {k: v for k, v in alone.items() if k != "provenance"} == {
            k: v for k, v in row.items() if k != "provenance"
        }


def test_the_figures_are_drawn(smoke):
    for figure in ("success", "attention", "prophet", "plan"):
        assert "<svg" in (smoke / f"results/figures/{figure}.svg").read_text()[:2000]


def test_the_options_that_the_plan_chose_were_run(smoke):
    plan = read_json(smoke / "results/plan.json")
    assert plan["chosen"] == read_json(smoke / "results/pickup.json")["scheduled"] == ["A"]
    assert plan["stages"] == []  # nobody has measured what a stage costs at smoke scale


def test_the_attention_of_front_and_wrist_is_compared(smoke):
    text = (smoke / "results/attention.txt").read_text()
    assert "front" in text
    assert "wrist" in text
    table = pq.read_table(smoke / "results/attention_rollout_A.parquet")
    chunks = table.group_by(["episode", "step", "denoise_step", "head"]).aggregate([("attention", "sum")])
    assert len(chunks) == 2 * 3 * 4 * 8  # 20 steps are three chunks, of four denoising steps and eight heads each
    assert all(abs(total - 1) < 1e-4 for total in chunks["attention_sum"].to_pylist())


def test_the_quality_of_prophet_is_measured_on_held_out_episodes(smoke):
    for option in ("E2", "A"):
        foresight = read_json(smoke / f"results/prophet_{option}.json")
        assert len(foresight["held_out"]) == 2
        assert [step["k"] for step in foresight["overall"][foresight["cameras"][0]]["steps"]] == list(range(1, 9))
    assert "E2's Prophet" in (smoke / "results/decision.txt").read_text()


def test_demonstrations_show_what_the_cameras_see(smoke):
    table = pq.read_table(next((smoke / "results/dataset/data").rglob("*.parquet")))
    for key in ("observation.images.image", "observation.images.image2"):
        image = Image.open(io.BytesIO(table[key][0]["bytes"].as_py()))
        assert image.size == (64, 64)
        assert len(image.getcolors(4096)) > 50


# ---- provenance -----------------------------------------------------------------------------------------------------


def test_snakemake_verifies_the_whole_folder(smoke, run_smoke):
    assert re.search(r"\d\d artifacts, all as they were made", run_smoke(smoke, "verify"))


def test_every_artifact_leads_back_to_the_demonstrations(smoke, monkeypatch):
    monkeypatch.chdir(smoke)
    for name in ("decision.txt", "figures/success.svg", "ckpt_A/seed_0/model.safetensors", "videos/E0/task_0"):
        walked = {step.ingredient.path for step in walk(f"results/{name}")}
        assert {"results/demonstrations/task_0", "results/demonstrations/task_1"} <= walked, name


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def change_a_success(path):
    path.write_text(path.read_text().replace('"success": false', '"success": true', 1))


@pytest.mark.parametrize(
    ("name", "damage", "found"),
    [
        ("ckpt_E2/seed_0/model.safetensors", flip, "ckpt_E2/seed_0"),
        ("latents_front.parquet", truncate, "latents_front.parquet"),
        ("latents_front.parquet", flip, "latents_front.parquet"),
        ("dataset/meta/info.json", flip, "dataset"),
        ("eval_E0_0.json", change_a_success, "eval_E0_0.json"),
        ("rollouts/E0/seed_0/task_0/block_0.jsonl", change_a_success, "rollouts/E0/seed_0/task_0/block_0.jsonl"),
        ("decision.json", truncate, "decision.json"),
        ("decision.txt", truncate, "decision.txt"),
    ],
)
def test_verifying_finds_the_damaged_artifact(smoke, tmp_path, name, damage, found):
    shutil.copytree(smoke / "results", tmp_path / "results")
    damage(tmp_path / "results" / name)
    wrong = [
        path.relative_to(tmp_path / "results").as_posix() for path, problems in verify(tmp_path / "results") if problems
    ]
    assert found in wrong
    assert "ckpt_E0/seed_0" not in wrong


def test_checkpoints_swapped_under_each_others_names_are_found(smoke, tmp_path):
    shutil.copytree(smoke / "results", tmp_path / "results")
    checkpoints = [tmp_path / f"results/ckpt_{option}/seed_0" for option in ("E2", "A")]
    checkpoints[0].rename(tmp_path / "kept")
    checkpoints[1].rename(checkpoints[0])
    (tmp_path / "kept").rename(checkpoints[1])
    wrong = {path for path, problems in verify(tmp_path / "results") if problems}
    assert set(checkpoints) <= wrong
