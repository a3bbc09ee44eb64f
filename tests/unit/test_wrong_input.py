"""Wrong input ends in one clear line that names the offender, before anything expensive, and leaves no output."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from snakemake.utils import update_config

from tests.unit.decision.samples import contents, read
from tests.unit.decision.samples import judged as judged_samples
from tests.unit.decision.samples import spec as decision_spec
from world_modality.artifacts.provenance import making
from world_modality.evaluation.actions import write_actions
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import ConfigError, Tree
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.table import METADATA_KEY, LatentTable

REPOSITORY = Path(__file__).parents[2]
FRONT, WRIST, TOP = (f"observation.images.{name}" for name in ("image", "image2", "top"))
LENGTHS = (1, 5, 9)  # of the episodes of `folder`'s dataset

# ---- the configuration ----------------------------------------------------------------------------------------------

HOURS = "{none: 1, one: 1, both: 1}"
OVERLAYS = {
    # options that are not in the table
    "run: [E0, E2, E2-zer]": "run[2]: no option E2-zer; did you mean E2-zero? valid: E0, E2, A, E2-zero, S0",
    "decision: {wrist: B}": "decision.wrist: no option B; valid: E0, E2, A, E2-zero, S0",
    "decision: {on_success: [C]}": "decision.on_success[0]: no option C; valid: E0, E2, A, E2-zero, S0",
    "options: {E2-zero: {checkpoint_of: E3}}": "options.E2-zero.checkpoint_of: no option E3; valid: E0, E2, A, ",
    # tasks and episodes beyond the suite
    "demonstrations: {tasks: [0, 10]}": "demonstrations.tasks: libero_spatial has tasks 0 to 9, not 10",
    "evaluation: {tasks: [0, 1, 10]}": "evaluation.tasks: libero_spatial has tasks 0 to 9, not 10",
    "decision: {pickup_tasks: [10]}": "decision.pickup_tasks: libero_spatial has tasks 0 to 9, not 10",
    "decision: {pickup_tasks: [-1]}": "decision.pickup_tasks.0: Input should be greater than or equal to 0, not -1",
    "evaluation: {tasks: [0, 1, 5]}": "evaluation.tasks: task 5 is not in demonstrations.tasks: no policy learns it",
    "decision: {pickup_tasks: [5]}": "decision.pickup_tasks: task 5 is not in evaluation.tasks",
    "{simulation: {spread: 0}, decision: {stopping: fixed}, evaluation: {episodes: 51}}": "evaluation.episodes: "
    "LIBERO's benchmark has 50 initial states a task, not 51; with simulation.spread above 0 any number is drawn",
    "evaluation: {episodes: 50}": "evaluation.episodes: 50 means nothing with decision.stopping adaptive; "
    "evaluation.max_episodes is the cap, and stopping fixed takes a number chosen beforehand",
    "decision: {stopping: fixed}": "evaluation.episodes: decision.stopping fixed needs a number",
    # numbers out of range
    "training: {steps: -5}": "training.steps: Input should be greater than 0, not -5",
    "training: {steps: 0}": "training.steps: Input should be greater than 0, not 0",
    "training: {batch_size: 0}": "training.batch_size: Input should be greater than 0, not 0",
    "world: {window: 0}": "world.window: Input should be greater than or equal to 1, not 0",
    "world: {window: 3}": "world: window 3: V-JEPA 2 sees frames in pairs, so 1 or an even number",
    "world: {horizon: 0}": "world.horizon: Input should be greater than or equal to 1, not 0",
    "evaluation: {n_action_steps: 17}": "evaluation.n_action_steps 17 is above policy.chunk_size 16",
    "training: {warmup_steps: 3200}": "training: warmup_steps 3200 is not below steps 3200",
    "options: {A: {training: {warmup_steps: 9999}}}": "options.A.training: warmup_steps 9999 is not below steps 3200",
    "training: {learning_rate: .nan}": "training.learning_rate: Input should be a finite number, not nan",
    "training: {grad_clip_norm: .inf}": "training.grad_clip_norm: Input should be a finite number, not inf",
    "training: {seeds: [4294967296]}": "training.seeds.0: Input should be less than or equal to 4294967295, not",
    # misspelt keys
    "optoins: {A: {label: x}}": "optoins: unknown key; did you mean options? valid: scale, device, image_keys, ",
    "training: {learning_rat: 1.0}": "training.learning_rat: unknown key; did you mean learning_rate? valid: steps, ",
    "options: {A: {labl: x}}": "options.A.labl: unknown key; did you mean label? valid: cameras, window, memory, ",
    "options: {A: {training: {warmup_step: 5}}}": (
        "options.A.training.warmup_step: unknown key; did you mean warmup_steps? valid: learning_rate, warmup_steps, "
    ),
    "options: {A: {training: {steps: 5}}}": "options.A.training.steps: unknown key; valid: learning_rate, warmup_",
    # cameras
    "options: {A: {cameras: [wirst]}}": "options.A.cameras.0: Input should be 'front' or 'wrist', not 'wirst'",
    "image_keys: {frnt: a}": "image_keys.frnt: Input should be 'front' or 'wrist', not 'frnt'",
    "image_keys: {wrist: ''}": r"image_keys.wrist: String should match pattern '^\S+$', not ''",
    "image_keys: {wrist: observation.images.image}": "image_keys: two cameras have the same image key",
    # values of another kind
    "evaluation: {horizon: yes}": "evaluation.horizon: a truth value where none is expected, not True",
    "training: {seeds: [on]}": "training.seeds: a truth value where none is expected",
    "training: {learning_rate: fast}": "training.learning_rate: Input should be a valid number, unable to parse",
    "training: ": "training: Input should be a valid dictionary or instance of Training, not None",
    "figures: {pickup_color: blue}": "figures.pickup_color: String should match pattern '^#[0-9a-f]{6}$', not 'blue'",
    # the budget and what the stages cost
    "decision: {on_hurt: [A, B]}": "decision.on_hurt[1]: no option B; valid: E0, E2, A, E2-zero, S0",
    "decision: {on_hurt: [A, A]}": "decision.on_hurt: A is listed twice",
    "decision: {on_hurt: [E2-zero]}": "decision.on_hurt: lacks A, which is decision.wrist",
    "budget: {gpu_hours: -1}": "budget.gpu_hours: Input should be greater than or equal to 0, not -1",
    "budget: {gpu_hours: .inf}": "budget.gpu_hours: Input should be a finite number, not inf",
    "budget: {gpu_hours: much}": "budget.gpu_hours: Input should be a valid number, unable to parse",
    "budget: {gpus: 0}": "budget.gpus: Input should be greater than or equal to 1, not 0",
    "budget: {gpus: 1.5}": "budget.gpus: Input should be a valid integer",
    "budget: {gpu_hour: 3}": "budget.gpu_hour: unknown key; did you mean gpu_hours? valid: gpu_hours, gpus",
    "budget: {gpu_hours: 8}": "budget.gpu_hours: 8 needs costs.embedded: the costs of embedded scale are not known",
    "costs: {full: {train: {one: -2}}}": "costs.full.train.one: Input should be greater than or equal to 0, not -2",
    "costs: {full: {train: {one: .nan}}}": "costs.full.train.one: Input should be a finite number, not nan",
    "costs: {full: {latents: {wirst: 2}}}": "costs.full.latents.wirst: unknown key; did you mean wrist? valid:",
    "costs: {full: {evaluate: {A: 4}}}": "costs.full.evaluate.A: unknown key; valid: none, one, both",
    f"costs: {{fulll: {{latents: {{front: 1, wrist: 1}}, train: {HOURS}, evaluate: {HOURS}, episodes: 9}}}}": (
        "costs.fulll: Input should be 'embedded', 'smoke' or 'full', not 'fulll'"
    ),
    f"costs: {{smoke: {{latents: {{front: 1, wrist: 1}}, train: {HOURS}, episodes: 9}}}}": (
        "costs.smoke.evaluate: missing"
    ),
    f"costs: {{smoke: {{latents: {{front: 1, wrist: 1}}, train: {HOURS}, evaluate: {HOURS}}}}}": (
        "costs.smoke.episodes: missing"
    ),
    "costs: {full: {episodes: 0}}": "costs.full.episodes: Input should be greater than or equal to 1, not 0",
    # lists
    "run: []": "run: List should have at least 2 items after validation, not 0",
    "run: [E0, E2, E2]": "run: E2 is listed twice",
    "training: {seeds: [1, 1]}": "training.seeds: 1 is listed twice",
    "evaluation: {tasks: [0, 1, 1]}": "evaluation.tasks: 1 is listed twice",
    # keys that contradict each other
    "encoder: {source: hub, repo_id: a/b}": "encoder: source hub needs repo_id and revision",
    "demonstrations: {source: hub, repo_id: a/b, revision: the newest}": "demonstrations.revision: String should match",
    "options: {E2-zero: {cameras: [front]}}": "options.E2-zero: a row with checkpoint_of takes its cameras from that",
    "options: {E2-zero: {training: {warmup_steps: 1}}}": "options.E2-zero: a row with checkpoint_of trains nothing",
    "demonstrations: {max_attempts_per_task: 5}": "demonstrations: max_attempts_per_task is below episodes_per_task",
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_wrong_overlay_is_reported_in_one_line(overlay):
    config = default_config()
    update_config(config, yaml.safe_load(overlay))
    with pytest.raises(ConfigError) as refused:
        load_experiment(config)
    [line] = str(refused.value).splitlines()
    assert line.startswith(OVERLAYS[overlay])


SNAKEMAKE = [
    ("world: {window: 0}", "all", "error: world.window: Input should be greater than or equal to 1, not 0"),
    (
        "options: {A: {training: {warmup_step: 5}}}",
        "results/decision.txt",
        "error: options.A.training.warmup_step: unknown key; did you mean warmup_steps? "
        "valid: learning_rate, warmup_steps, final_learning_rate",
    ),
    ("{}", "results/eval_E2_10.json", "ConfigError: libero_spatial has tasks 0 to 9, not 10"),
    ("{}", "results/ckpt_E9/manifest.json", "ConfigError: no option E9; valid: E0, E2, A, E2-zero, S0"),
]


@pytest.mark.parametrize(("overlay", "target", "message"), SNAKEMAKE)
def test_snakemake_stops_before_it_plans(tmp_path, overlay, target, message):
    (tmp_path / "overlay.yaml").write_text(overlay)
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile", "--cores", "1"]
    command += ["--directory", tmp_path / "run", "--configfile", tmp_path / "overlay.yaml", "-n", "--", target]
    environment = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode != 0
    assert message in [line.strip() for line in (run.stdout + run.stderr).splitlines()]
    assert "Traceback (most recent call last)" not in run.stdout + run.stderr
    assert not (tmp_path / "run" / "results").exists()


# ---- the programs ---------------------------------------------------------------------------------------------------

ENCODE, TRAIN = "scripts/precompute_world_latents.py", "world_modality/train_llm_vla.py"
EVALUATE, RECORD = "scripts/evaluate_policy.py", "scripts/record_demonstrations.py"
EXPENSIVE = [
    "world_modality.latents.encoder.VideoEncoder.encode",
    "lerobot.policies.factory.make_policy",
    "world_modality.evaluation.pilot.get_policy_class",
    "world_modality.evaluation.blocks.Simulator",
    "world_modality.evaluation.films.LiberoSimulation",
    "world_modality.data.demonstrations.LiberoSimulation",
    "world_modality.data.demonstrations.aggregate_datasets",
]


def call(program, flags):
    """Run a program in this process; a flag's value None leaves the flag out."""
    words = [program]
    for name, value in flags.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        runpy.run_path(str(REPOSITORY / program), run_name="__main__")


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Run a program that must refuse what it is given; returns the one line that it prints."""

    def too_late(*_, **__):
        raise AssertionError("refused too late: something expensive began")

    for name in EXPENSIVE:
        monkeypatch.setattr(name, too_late)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def run(program, flags):
        with pytest.raises(SystemExit) as stopped:
            call(program, flags)
        code = stopped.value.code
        assert code not in (0, None)
        by_argparse = code == 2  # the usage, then the error
        line = capsys.readouterr().err.splitlines()[-1] if by_argparse else code
        assert "\n" not in line
        assert "error: " in line
        for flag in ("output", "output-json", "output-text", "output-plan"):
            if flag in flags:
                assert not list(Path(flags[flag]).parent.glob(f"*{Path(flags[flag]).name}*"))
        return line

    return run


def encode_flags(folder, output):
    flags = {"dataset": folder / "dataset", "encoder": folder / "encoder", "image_key": FRONT}
    return flags | {"batch_size": 8, "output": output}


def train_flags(experiment, folder, latents, output):
    training = experiment.training.model_copy(update={"steps": 2})
    spec = experiment.model_copy(update={"training": training}).train_spec("E2")
    flags = {"dataset": folder / "dataset", "vlm": folder / "vlm", "encoder": folder / "encoder", "image_key": [FRONT]}
    flags |= {"latents": [f"front={latents}"], "spec": spec.model_dump_json(), "seed": 0}
    return flags | {"output": output}


@pytest.fixture(scope="module")
def made(experiment, folder, tmp_path_factory):
    """Latents and a checkpoint made by the programs, from a dataset that has an episode of one frame."""
    root = tmp_path_factory.mktemp("made")
    call(ENCODE, encode_flags(folder, root / "front.parquet"))
    call(TRAIN, train_flags(experiment, folder, root / "front.parquet", root / "checkpoint"))
    return root


@pytest.fixture
def desk(experiment, folder, made, tmp_path):
    """What a case of the tables below may take and spoil."""
    return SimpleNamespace(experiment=experiment, folder=folder, made=made, tmp=tmp_path)


def test_episodes_of_one_frame_work(made):
    assert 1 in LENGTHS
    assert len(LatentTable.open(made / "front.parquet")) == sum(LENGTHS)
    assert (made / "checkpoint" / "model.safetensors").is_file()


# Ways to spoil an artifact; each returns the path of the spoiled copy.


def copied(desk, artifact):
    copy = desk.tmp / f"spoiled_{artifact.name}"
    shutil.copytree(artifact, copy) if artifact.is_dir() else shutil.copy(artifact, copy)
    return copy


def recorded(path):
    """Give an artifact a record that matches it as it is now, so that only its content can be refused."""
    with making(path, str(REPOSITORY / ENCODE), {}) as temporary:
        shutil.copytree(path, temporary) if path.is_dir() else shutil.copy(path, temporary)
    return path


def dataset_without(part):
    def spoil(desk):
        copy = copied(desk, desk.folder / "dataset")
        shutil.rmtree(copy / part) if (copy / part).is_dir() else (copy / part).unlink()
        return copy

    return spoil


def dataset_with_tasks(*tasks):
    def spoil(desk):
        copy = copied(desk, desk.folder / "dataset")
        table = pq.read_table(copy / "meta/tasks.parquet").slice(0, len(tasks))
        pq.write_table(table.set_column(1, "task", pa.array(tasks)), copy / "meta/tasks.parquet")
        return copy

    return spoil


def dataset_at_fps(fps):
    def spoil(desk):
        copy = copied(desk, desk.folder / "dataset")
        info = json.loads((copy / "meta/info.json").read_text())
        (copy / "meta/info.json").write_text(json.dumps(info | {"fps": fps}))
        return copy

    return spoil


def truncated(path, count=200):
    path.write_bytes(path.read_bytes()[:-count])
    return path


def flipped(path, position):
    """A file with one bit flipped, `position` bytes before its end."""
    content = bytearray(path.read_bytes())
    content[-position] ^= 1
    path.write_bytes(content)
    return path


def with_a_flipped_latent(path):
    """A table of latents with one bit flipped in its first row group."""
    size = path.stat().st_size
    latents = pq.read_metadata(path).row_group(0).column(3)
    return flipped(path, size - latents.data_page_offset - latents.total_compressed_size + 8)


def truncated_dataset(desk):
    copy = copied(desk, desk.folder / "dataset")
    truncated(next((copy / "data").rglob("*.parquet")))
    return copy


def latents(value=None, **fields):
    """The front camera's latents: frame 3 all of one value, or fields of the LatentSpec changed."""

    def spoil(desk):
        table = pq.read_table(desk.folder / "front.parquet")
        spec = json.loads(table.schema.metadata[METADATA_KEY])
        numbers = np.stack(table["latent"].to_numpy())
        if value is not None:
            numbers[3] = value
        column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), spec["dim"])
        metadata = {METADATA_KEY: json.dumps(spec | fields)}
        schema = table.schema.with_metadata(metadata)
        pq.write_table(pa.table([*table.columns[:3], column], schema=schema), desk.tmp / "spoiled.parquet")
        return [f"front={recorded(desk.tmp / 'spoiled.parquet')}"]

    return spoil


def other_encoder(desk):
    build_small_encoder(desk.experiment.encoder.model_copy(update={"seed": 1}), desk.tmp / "other_encoder")
    return desk.tmp / "other_encoder"


def spoiled_encoder(spoil):
    def spoiled(desk):
        copy = copied(desk, desk.folder / "encoder")
        spoil(copy / "model.safetensors")
        return copy

    return spoiled


def empty_folder(desk):
    (desk.tmp / "empty").mkdir()
    return desk.tmp / "empty"


def spoiled(flags, changes, desk):
    """The flags of a program with some replaced; a callable makes the value from the desk."""
    return flags | {name: value(desk) if callable(value) else value for name, value in changes.items()}


ENCODE_CASES = {
    "an unknown flag": ({"windw": 4}, "unrecognized arguments: --windw 4"),
    "a camera the dataset lacks": (
        {"image_key": TOP},
        f"{TOP}: the dataset has no such camera; valid: {FRONT}, {WRIST}",
    ),
    "a window of no frames": ({"temporal_window": 0}, "argument --temporal_window: 0 is not a whole number from 1"),
    "a window of three frames": ({"temporal_window": 3}, "a window of 3 frames: V-JEPA 2 takes up to 2 or a multiple"),
    "batches of nothing": ({"batch_size": 0}, "argument --batch_size: 0 is not a whole number from 1"),
    "a size that is no number": ({"image_size": "big"}, "argument --image_size: big is not a whole number from 1"),
    "a size the patches do not fill": ({"image_size": 70}, "image size 70 is not a multiple of the patch size 16"),
    "an unknown device": ({"device": "gpu"}, "argument --device: invalid choice: 'gpu' (choose from 'cpu', 'cuda')"),
    "a GPU where there is none": ({"device": "cuda"}, "device cuda: no GPU can be used here; valid: cpu"),
    "an unknown precision": ({"precision": "fp16"}, "argument --precision: invalid choice: 'fp16' (choose from 'fp32'"),
    "a dataset that is missing": (
        {"dataset": "results/nowhere"},
        "results/nowhere: no such folder, and no LeRobotDataset on the hub (",
    ),
    "a dataset that is a file": ({"dataset": REPOSITORY / "config.yaml"}, "neither a folder nor a hub id"),
    "a folder that is no dataset": (
        {"dataset": lambda d: d.folder / "vlm"},
        "vlm: meta/info.json is missing; a LeRobo",
    ),
    "a dataset without episodes": (
        {"dataset": dataset_without("meta/episodes")},
        "meta/episodes is missing; a LeRobot",
    ),
    "a dataset without frames": (
        {"dataset": dataset_without("data")},
        "data is missing; a LeRobotDataset has meta/info",
    ),
    "a truncated dataset": (
        {"dataset": truncated_dataset},
        "file-000.parquet: truncated or damaged Parquet (",
    ),
    "an empty instruction": ({"dataset": dataset_with_tasks("go", " ")}, "task 1 has an empty instruction"),
    "a missing instruction": (
        {"dataset": dataset_with_tasks("go")},
        "episode 1 is of task 1, which has no instruction in meta/tasks.parquet",
    ),
    "frames of another fps": (
        {"dataset": dataset_at_fps(10)},
        "meta/info.json says 10 fps, but frame 1 of episode 1 is at 0.05 s",
    ),
    "an encoder that is missing": (
        {"encoder": "results/nowhere"},
        "results/nowhere: no such folder, and no V-JEPA 2 on the hub (",
    ),
    "an encoder of another kind": ({"encoder": lambda d: d.folder / "vlm"}, "is a smolvlm, not a V-JEPA 2 (vjepa2)"),
    "a folder that is no encoder": ({"encoder": empty_folder}, "empty: no V-JEPA 2 (Unrecognized model"),
    "truncated encoder weights": (
        {"encoder": spoiled_encoder(truncated)},
        "its weights cannot be read (Error while des",
    ),
    "no encoder weights": (
        {"encoder": spoiled_encoder(Path.unlink)},
        "its weights cannot be read (Error no file named",
    ),
}


@pytest.mark.parametrize("case", ENCODE_CASES)
def test_encoding_is_refused(desk, refusal, case):
    changes, message = ENCODE_CASES[case]
    flags = encode_flags(desk.folder, desk.tmp / "out" / "latents.parquet")
    assert message in refusal(ENCODE, spoiled(flags, changes, desk))


def test_latents_that_are_not_numbers_are_not_written(desk, refusal, monkeypatch):
    monkeypatch.setattr(
        "world_modality.latents.encoder.VideoEncoder.encode", lambda self, w: np.nan * w.new_ones(len(w), 48)
    )
    line = refusal(ENCODE, encode_flags(desk.folder, desk.tmp / "out" / "latents.parquet"))
    assert "episode 0: the latent of frame 0 is NaN or infinite" in line


def spec_with(section, **values):
    """The option's spec with values of a section, or of the spec itself (None), replaced without validation."""

    def change(desk):
        spec = json.loads(train_flags(desk.experiment, desk.folder, None, None)["spec"])
        (spec if section is None else spec[section]).update(values)
        return json.dumps(spec)

    return change


TRAIN_CASES = {
    "a dataset that is missing": (
        {"dataset": "results/nowhere"},
        "argument --dataset: results/nowhere: no such file or",
    ),
    "an empty instruction": (
        {"dataset": dataset_with_tasks("", "go"), "latents": latents()},
        "task 0 has an empty instruction",
    ),
    "a missing instruction": (
        {"dataset": dataset_with_tasks("go"), "latents": latents()},
        "episode 1 is of task 1, which has no instruction",
    ),
    "a task to be evaluated that was not demonstrated": (
        {"suite": "libero_spatial", "evaluated": [0, 2]},
        "dataset: no demonstration of libero_spatial task 2, 'pick up the black bowl from table center and place it on",
    ),
    "tasks of no suite": ({"evaluated": [0]}, "no LIBERO suite None; valid: libero_spatial, libero_object, libero_g"),
    "a task that the suite lacks": (
        {"suite": "libero_spatial", "evaluated": [10]},
        "libero_spatial has tasks 0 to 9, not 10",
    ),
    "tasks of another suite": (
        {"suite": "libero_goal", "evaluated": [0]},
        "dataset: no demonstration of libero_goal task 0, 'open the middle drawer of the cabinet' to the letter; the",
    ),
    "a camera the dataset lacks": (
        {"spec": spec_with("image_keys", front=TOP), "image_key": [TOP]},
        f"{TOP}: the dataset has no such camera; valid: {FRONT}, {WRIST}",
    ),
    "another camera than the option's": (
        {"image_key": [WRIST]},
        f"--image_key ['{WRIST}']: option E2 is trained on ['{FRONT}']",
    ),
    "another wrist camera": ({"wrist_image_key": TOP}, f"--wrist_image_key {TOP}: the spec says {WRIST}"),
    "K beyond every episode": (
        {"spec": spec_with("world", horizon=9)},
        "world.horizon 9: the longest episode has 9 frames, so at most 8 lie ahead of any",
    ),
    "m = 0": (
        {"spec": spec_with("world", window=0)},
        "argument --spec: world.window: Input should be greater than or eq",
    ),
    "negative steps": (
        {"spec": spec_with("training", steps=-1)},
        "argument --spec: training.steps: Input should be grea",
    ),
    "a misspelt key of the spec": (
        {"spec": spec_with("training", stepz=1)},
        "argument --spec: training.stepz: unknown key; did you mean steps? valid: steps, batch_size, ",
    ),
    "a spec that is missing": ({"spec": "spec.json"}, "argument --spec: spec.json: no such file or folder"),
    "a GPU where there is none": (
        {"spec": spec_with(None, device="cuda")},
        "device cuda: no GPU can be used here; valid",
    ),
    "a negative seed": ({"seed": -1}, "argument --seed: -1 is not a whole number from 0 to 4294967295"),
    "a seed beyond 32 bits": ({"seed": 2**32}, "4294967296 is not a whole number from 0 to 4294967295"),
    "states that are never saved": ({"save_every": 0}, "argument --save_every: 0 is not a whole number from 1"),
    "a VLM of another kind": ({"vlm": lambda d: d.folder / "encoder"}, "encoder: has vjepa2, expected a SmolVLM"),
    "a folder that is no VLM": ({"vlm": empty_folder}, "empty: has no config.json, expected a SmolVLM"),
    "no encoder": ({"encoder": None}, "option E2 encodes its camera at rollout: --encoder is missing"),
    "no latents": ({"latents": None}, "option E2 needs the latents of ['front'], not of none"),
    "latents that are missing": (
        {"latents": "front=gone.parquet"},
        "argument --latents: gone.parquet: no such file or",
    ),
    "latents of an unknown camera": ({"latents": "top=x.parquet"}, "'top=x.parquet' is not front=PATH or wrist=PATH"),
    "latents that are not numbers": ({"latents": latents(np.nan)}, "the latent of frame 3 is NaN or infinite"),
    "latents that are all zero": ({"latents": latents(0.0)}, "the latent of frame 3 is all zeros"),
    "latents of another camera": ({"latents": latents(image_key=WRIST)}, f"image_key is '{WRIST}', expected '{FRONT}'"),
    "latents of another window": ({"latents": latents(window=2)}, "window is 2, expected 4"),
    "latents of another dataset": ({"dataset": dataset_with_tasks("go", "stay")}, "was made from dataset "),
    "latents of an unknown dataset": (
        {"latents": latents(dataset_fingerprint="0")},
        "dataset_fingerprint is '0', expecte",
    ),
    "latents of another encoder": ({"encoder": other_encoder}, "was made from encoder "),
    "latents of an unknown encoder": (
        {"encoder": other_encoder, "latents": latents()},
        "spoiled.parquet: encoder_sha256 is ",
    ),
    "truncated latents": (
        {"latents": lambda d: [f"front={truncated(copied(d, d.made / 'front.parquet'))}"]},
        "spoiled_front.parquet: truncated or damaged Parquet (",
    ),
    "a bit of the latents flipped": (
        {"latents": lambda d: [f"front={with_a_flipped_latent(copied(d, d.made / 'front.parquet'))}"]},
        "spoiled_front.parquet: truncated or damaged Parquet (could not verify page integrity",
    ),
}


@pytest.mark.parametrize("case", TRAIN_CASES)
def test_training_is_refused(desk, refusal, case):
    changes, message = TRAIN_CASES[case]
    flags = train_flags(desk.experiment, desk.folder, desk.made / "front.parquet", desk.tmp / "out" / "seed_0")
    assert message in refusal(TRAIN, spoiled(flags, changes, desk))
    assert not list(desk.tmp.glob("out/*"))  # no state of a training either


def checkpoint(spoil, new_record=False):
    """A spoiled copy of the checkpoint, which no longer matches its record, unless it gets a new one."""

    def change(desk):
        copy = copied(desk, desk.made / "checkpoint")
        spoil(copy)
        return recorded(copy) if new_record else copy

    return change


def rollout_of(option, **protocol):
    def change(desk):
        spec = desk.experiment.rollout_spec(option)
        return spec.model_copy(update={"protocol": spec.protocol.model_copy(update=protocol)}).model_dump_json()

    return change


def trained_on(*instructions):
    def change(checkpoint):
        content = json.loads((checkpoint / "training.json").read_text())
        (checkpoint / "training.json").write_text(json.dumps(content | {"instructions": instructions}))

    return checkpoint(change, new_record=True)


EVALUATE_CASES = {
    "task 10": ({"task": 10}, "libero_spatial has tasks 0 to 9, not 10"),
    "a negative task": ({"task": -1}, "libero_spatial has tasks 0 to 9, not -1"),
    "initial states beyond the last": ({"first": 45}, "task 0: no initial state 50; there are 0 to 49"),
    "a task that was not demonstrated": (
        {"task": 2},
        "checkpoint: no demonstration of libero_spatial task 2, 'pick up the black bowl from table center and place it",
    ),
    "demonstrations in other words": (
        {"checkpoint": trained_on("Pick up the black bowl next to the ramekin", "Put it on the plate.")},
        "spoiled_checkpoint: no demonstration of libero_spatial task 0, 'pick up the black bowl between the plate and",
    ),
    "an initial state before the first": ({"first": -1}, "argument --first: -1 is not a whole number from 0"),
    "no initial state": ({"count": 0}, "argument --count: 0 is not a whole number from 1"),
    "a checkpoint that is missing": (
        {"checkpoint": "nowhere"},
        "argument --checkpoint: nowhere: no such file or folder",
    ),
    "a folder that is no checkpoint": ({"checkpoint": empty_folder}, "empty: config.json is missing; a checkpoint has"),
    "another seed's checkpoint": ({"seed": 1}, "trained as option E2 with seed 0, expected E2 with seed 1"),
    "another option's checkpoint": (
        {"spec": rollout_of("A")},
        "trained as option E2 with seed 0, expected A with seed 0",
    ),
    "a chunk longer than predicted": ({"spec": rollout_of("E2", n_action_steps=5)}, "n_action_steps 5: "),
    "no preprocessor": (
        {"checkpoint": checkpoint(lambda c: (c / "policy_preprocessor.json").unlink(), new_record=True)},
        "policy_preprocessor.json is missing; a checkpoint has config.json, model.safetensors, policy_pre",
    ),
    "no postprocessor although the record lists one": (
        {"checkpoint": checkpoint(lambda c: (c / "policy_postprocessor.json").unlink())},
        "spoiled_checkpoint: damaged or altered: its content has hash",
    ),
    "a bit of the weights flipped": (
        {"checkpoint": checkpoint(lambda c: flipped(c / "model.safetensors", 4))},
        "spoiled_checkpoint: damaged or altered: its content has hash",
    ),
    "truncated weights": (
        {"checkpoint": checkpoint(lambda c: truncated(c / "model.safetensors"), new_record=True)},
        "spoiled_checkpoint/model.safetensors: truncated or damaged (",
    ),
}


@pytest.mark.parametrize("case", EVALUATE_CASES)
def test_evaluating_is_refused(desk, refusal, case):
    changes, message = EVALUATE_CASES[case]
    spec = desk.experiment.rollout_spec("E2").model_dump_json()
    flags = {"checkpoint": desk.made / "checkpoint", "task": 0, "seed": 0, "first": 0, "count": 10, "spec": spec}
    flags["output"] = desk.tmp / "out" / "block_0.jsonl"
    flags |= {kind: desk.tmp / "out" / f"block_0_{kind}.parquet" for kind in ("actions", "attention")}
    assert message in refusal(EVALUATE, spoiled(flags, changes, desk))


@pytest.mark.parametrize("task", [10, -1])
def test_recording_a_task_the_suite_lacks_is_refused(desk, refusal, task):
    spec = desk.experiment.record_spec().model_dump_json()
    flags = {"task": task, "spec": spec, "output": desk.tmp / "out" / f"task_{task}"}
    assert f"libero_spatial has tasks 0 to 9, not {task}" in refusal(RECORD, flags)


def test_filming_the_blocks_of_another_option_is_refused(desk, refusal):
    (desk.tmp / "block_0.jsonl").write_text(
        json.dumps({"option": "S0", "task": 0, "train_seed": 0, "init_state_id": 0})
    )
    write_actions(desk.tmp / "actions.parquet", {0: np.zeros((2, 7))})
    flags = {"task": 0, "blocks": recorded(desk.tmp / "block_0.jsonl"), "size": 64}
    flags["actions"] = recorded(desk.tmp / "actions.parquet")
    flags |= {"spec": desk.experiment.rollout_spec("E2").model_dump_json(), "output": desk.tmp / "out" / "task_0"}
    assert "holds rollouts of S0 on task 0" in refusal("scripts/record_videos.py", flags)


# ---- joining recordings ---------------------------------------------------------------------------------------------


def recording(desk, name, fps=20, **spec):
    part = dataset_at_fps(fps)(desk).rename(desk.tmp / name)
    (part / "recording.json").write_text(json.dumps({"tasks": [{"spec": spec, "versions": {}}]}))
    return recorded(part)


def joined(desk, *parts):
    return {"parts": list(parts), "output": desk.tmp / "out" / "dataset"}


def test_recordings_at_different_fps_are_not_joined(desk, refusal):
    parts = [recording(desk, "task_0"), recording(desk, "task_1", fps=10)]
    line = refusal("scripts/aggregate_demonstrations.py", joined(desk, *parts))
    assert f"{parts[1]}: meta/info.json says 10 fps, but 20 in {parts[0]}" in line


def test_a_folder_that_is_no_recording_is_not_joined(desk, refusal):
    parts = [recording(desk, "task_0"), recorded(copied(desk, desk.folder / "dataset"))]
    line = refusal("scripts/aggregate_demonstrations.py", joined(desk, *parts))
    assert f"{parts[1]} is not a recording: recording.json is missing" in line


# ---- the decision ---------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path):
    """Flags of the two programs of the tree, and the evaluations and the look they read."""
    settings, paths, files = decision_spec(), [], contents(E0=5, E2=6)
    *_, looks = judged_samples(read(tmp_path, files), settings)
    look = tmp_path / "look.json"
    look.write_text(json.dumps(looks[0].as_json()))
    recorded(look)
    for (option, task), content in files.items():
        paths.append(tmp_path / f"eval_{option}_{task}.json")
        paths[-1].write_text(json.dumps(content))
        recorded(paths[-1])
    tree = {
        name: value for name, value in settings.model_dump(mode="json")["decision"].items() if name in Tree.model_fields
    }
    judge = {"look": look, "output": tmp_path / "out" / "pickup.json"}
    judge["output-plan"] = tmp_path / "out" / "plan.json"
    plan = settings.plan.model_dump(mode="json")
    judge["spec"] = json.dumps({"decision": tree, "run": settings.run, "plan": plan})
    (tmp_path / "fairness.json").write_text("{}")
    recorded(tmp_path / "fairness.json")
    (tmp_path / "plan.json").write_text("{}")
    recorded(tmp_path / "plan.json")
    (tmp_path / "pickup.json").write_text("{}")
    recorded(tmp_path / "pickup.json")
    decide = {name: tmp_path / f"{name}.json" for name in ("pickup", "plan", "fairness")}
    decide |= {"looks": [look], "evaluations": paths, "spec": settings.model_dump_json()}
    decide |= {"output-json": tmp_path / "out" / "decision.json", "output-text": tmp_path / "out" / "decision.txt"}
    return SimpleNamespace(paths=paths, look=look, judge=judge, decide=decide)


def test_a_renamed_evaluation_is_refused(judged, refusal):
    shutil.copy(judged.paths[0], judged.paths[2])
    line = refusal("scripts/decide.py", judged.decide)
    assert "eval_E2_0.json: holds what eval_E0_0.json should hold; was the file renamed or swapped?" in line


def test_a_truncated_evaluation_is_refused(judged, refusal):
    truncated(judged.paths[0], 20)
    assert "eval_E0_0.json: not a whole JSON file (" in refusal("scripts/decide.py", judged.decide)


def test_an_evaluation_that_is_missing_is_refused(judged, refusal):
    judged.paths[0].unlink()
    assert "eval_E0_0.json: no such file or folder" in refusal("scripts/decide.py", judged.decide)


def test_a_truncated_look_is_refused(judged, refusal):
    truncated(judged.look, 20)
    assert "look.json: not a whole JSON file (" in refusal("scripts/judge_pickup.py", judged.judge)


def test_a_look_with_an_impossible_value_is_refused(judged, refusal):
    judged.look.write_text('{"counts": {}, "comparison": {}, "settled": "perhaps"}')
    recorded(judged.look)
    assert "not a look.json: comparison.option: Field required" in refusal("scripts/judge_pickup.py", judged.judge)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pickup.json: not a whole JSON file ("),
        ("[]", "pickup.json: says nothing about what it was made from"),
    ],
)
def test_a_malformed_pickup_is_refused(judged, refusal, text, message):
    judged.decide["pickup"].write_text(text)
    assert message in refusal("scripts/decide.py", judged.decide)


def test_a_pickup_with_an_impossible_value_is_refused(judged, refusal):
    judged.decide["pickup"].write_text('{"baseline": "E0", "world": "e2"}')
    recorded(judged.decide["pickup"])
    assert "not a pickup.json: world: String should match pattern" in refusal("scripts/decide.py", judged.decide)


def test_a_malformed_decision_is_not_drawn(desk, refusal):
    (desk.tmp / "decision.json").write_text('{"token": "YES"}')
    flags = {
        "figure": "success",
        "data": recorded(desk.tmp / "decision.json"),
        "output": desk.tmp / "out" / "success.svg",
    }
    line = refusal("scripts/plot_figure.py", flags | {"spec": desk.experiment.figures.model_dump_json()})
    assert "decision.json: not a decision.json: token: Input should be 'VOID_BASELINE_TOO_WEAK', " in line


def test_a_checkpoint_from_elsewhere_is_not_listed(desk, refusal):
    copy = checkpoint(lambda c: (c / "training.json").unlink(), new_record=True)(desk)
    flags = {"option": "E2", "checkpoints": [copy], "output": desk.tmp / "out" / "manifest.json"}
    assert "training.json is missing; a checkpoint has config.json, model.safetensors, " in refusal(
        "scripts/write_manifest.py", flags
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "E9"], "error: no option E9; valid: E0, E2, A, E2-zero, S0"),
        (["train"], "error: no option (none given); valid: E0, E2, A, E2-zero, S0"),
        (["train", "E2-zero"], "error: E2-zero is not trained: it rolls out the checkpoint of E2"),
    ],
)
def test_the_spec_of_an_option_that_is_not_trained_is_not_printed(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["print_spec.py", *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(REPOSITORY / "scripts/tools/print_spec.py"), run_name="__main__")
    assert stopped.value.code == message
