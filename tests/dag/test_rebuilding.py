"""Exactly which artifacts an edit rebuilds, for every key of the config and every source file.

Each statement names the artifacts that an edit reaches directly; those made from them are rebuilt in any case. The
plans are Snakemake's own, for a folder where nothing has been made yet. An artifact counts as reached if its job's
params, inputs or command differ from those in the plan before the edit.
"""

import ast
import copy
import fnmatch
import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from world_modality.artifacts import sources
from world_modality.experiment.config import Experiment, default_config
from world_modality.experiment.sections import Costs, Option
from world_modality.report.rebuild import CONFIG_KEYS, plan

REPOSITORY = Path(__file__).parents[2]
CONFIG = default_config()
CONFIG["costs"]["embedded"] = copy.deepcopy(CONFIG["costs"]["full"])  # costs.yaml has none for this scale

NOTHING = set()
RECORDINGS = {"demonstrations/task_0", "demonstrations/task_1"}
WORLD_ROLLOUTS = {f"rollouts/{option}/*" for option in ("E2", "E2-zero", "A")}
INIT_STATES = {"init_states/*"}
LATENTS = {"latents_*.parquet"}
POLICIES = {"ckpt_*/seed_0"}
WORLD_POLICIES = {"ckpt_E2/seed_0", "ckpt_A/seed_0"}
ROLLOUTS = {"rollouts/*", "videos/*", "eval_*.json", "looks/*"}  # what is joined says the protocol of the rollouts
LOOKS = {"looks/*"}
CONTROLS = {"looks/S0_E0/*", "looks/E2-zero_E2/*"}  # one more comparison, and each has a smaller share of the level
PICKUP = {"pickup.json", "plan.json"}
DECISION = {"decision.json", "decision.txt"}
FAIRNESS = {"fairness.json"}
ADAPTIVE = {"decision": {"stopping": "adaptive"}, "evaluation": {"episodes": None}}
FIGURES = {"figures/success.svg", "figures/attention.svg", "figures/prophet.svg", "figures/plan.svg"}
ATTENTION = {"attention.json", "attention.txt"}
DRAWN_PROPHETS = {"figures/prophet.svg"}


def examined(option):
    """What is measured on a checkpoint with a Prophet."""
    return {f"prophet_{option}.json", f"attention_train_{option}.parquet"}


def evaluated(option, task="*"):
    rolled_out = {f"rollouts/{option}/seed_0/task_{task}/*", f"videos/{option}/task_{task}"}
    return rolled_out | {f"eval_{option}_{task}.json"} | ({f"looks/{option}_*"} if task == "*" else set())


COMMITS = ("a" * 40, "b" * 40)
HUB_DATA = {"demonstrations": {"source": "hub", "repo_id": "me/data", "revision": COMMITS[0]}}
HUB_ENCODER = {"encoder": {"source": "hub", "repo_id": "me/vjepa2", "revision": COMMITS[0]}}
HUB_VLM = {"vlm": {"source": "hub", "repo_id": "me/smolvlm", "revision": COMMITS[0]}}
HUB_POLICY = {"policy": {"source": "hub", "repo_id": "me/smolvla", "revision": COMMITS[0]}}
A_BRANCH = {"policy": HUB_POLICY["policy"] | {"revision": "main"}, "commits": {"me/smolvla@main": COMMITS[0]}}
BOTH = {"label": "both cameras", "cameras": ["front", "wrist"]}
SPARE = {"options": {"C": BOTH}}
# Another option with a Prophet: all of its own artifacts, and those that list the options with a Prophet.
NEW_C = {"ckpt_C/*", *evaluated("C"), *examined("C"), "attention_rollout_C.parquet"} | ATTENTION | DRAWN_PROPHETS

# key -> new value, artifacts reached and, if the edit needs one, another config to start from.
KEYS = {
    "scale": ("full", PICKUP | DECISION),  # the plan uses its costs
    "device": ("cuda", LATENTS | POLICIES | ROLLOUTS | {"attention_train_*"}),
    "image_keys.front": ("front", RECORDINGS | {"latents_front.parquet"} | POLICIES | ROLLOUTS),
    "image_keys.wrist": ("wrist", RECORDINGS | {"latents_wrist.parquet"} | POLICIES | ROLLOUTS),
    "simulation.suite": ("libero_object", INIT_STATES | ROLLOUTS, HUB_DATA),
    "simulation.camera_size": (96, RECORDINGS | ROLLOUTS),
    "simulation.render": ("stock", RECORDINGS | ROLLOUTS),
    "simulation.spread": (0.1, RECORDINGS | INIT_STATES | ROLLOUTS),
    "simulation.settle_steps": (5, RECORDINGS | INIT_STATES | ROLLOUTS),
    "demonstrations.source": (HUB_DATA["demonstrations"], {"dataset"}),
    "demonstrations.tasks": ([0, 1, 2], {"demonstrations/task_2", "dataset"}),
    "demonstrations.episodes_per_task": (31, RECORDINGS),
    "demonstrations.max_attempts_per_task": (70, RECORDINGS),
    "demonstrations.held_out_per_task": (5, POLICIES | {"prophet_*.json"}),
    "demonstrations.seed": (7, RECORDINGS),
    "demonstrations.repo_id": ("me/more", {"dataset"}, HUB_DATA),
    "demonstrations.revision": (COMMITS[1], {"dataset"}, HUB_DATA),
    "encoder.source": (HUB_ENCODER["encoder"], {"encoder"}),
    "encoder.repo_id": ("me/other", {"encoder"}, HUB_ENCODER),
    "encoder.revision": (COMMITS[1], {"encoder"}, HUB_ENCODER),
    "encoder.image_size": (128, {"encoder"} | LATENTS),
    "encoder.patch_size": (8, {"encoder"}),
    "encoder.hidden_size": (96, {"encoder"}),
    "encoder.layers": (5, {"encoder"}),
    "encoder.heads": (6, {"encoder"}),
    "encoder.seed": (1, {"encoder"}),
    "encoder.precision": ("bf16", LATENTS),  # a rollout takes it from the checkpoint, and that from the latents
    "encoder.pretrain_steps": (100, {"encoder_pretrained"} | LATENTS | WORLD_POLICIES | WORLD_ROLLOUTS),
    "latents.batch_size": (4, LATENTS),  # for a swap of 64 and 4 see test_a_swap_of_two_values_is_noticed
    "world.window": (8, LATENTS | WORLD_POLICIES),
    "world.history": (5, WORLD_POLICIES),
    "world.horizon": (4, WORLD_POLICIES),
    "world.prophet_width": (64, WORLD_POLICIES),
    "world.prophet_layers": (3, WORLD_POLICIES),
    "world.heads": (4, WORLD_POLICIES),
    "world.loss_weight": (0.5, WORLD_POLICIES),
    "vlm.source": (HUB_VLM["vlm"], {"vlm"} | POLICIES),
    "vlm.repo_id": ("me/other", {"vlm"} | POLICIES, HUB_VLM),
    "vlm.revision": (COMMITS[1], {"vlm"} | POLICIES, HUB_VLM),
    "vlm.image_size": (96, {"vlm"} | POLICIES),
    "vlm.patch_size": (8, {"vlm"} | POLICIES),
    "vlm.pixel_shuffle": (1, {"vlm"} | POLICIES),
    "vlm.hidden_size": (128, {"vlm"} | POLICIES),
    "vlm.layers": (3, {"vlm"} | POLICIES),
    "vlm.heads": (8, {"vlm"} | POLICIES),
    "policy.source": (HUB_POLICY["policy"], {"policy"} | POLICIES),
    "policy.repo_id": ("me/other", {"policy"} | POLICIES, HUB_POLICY),
    "policy.revision": (COMMITS[1], {"policy"} | POLICIES, HUB_POLICY),
    "policy.expert_width": (0.5, POLICIES),
    "policy.chunk_size": (20, POLICIES),
    "policy.flow_steps": (5, POLICIES),
    "training.steps": (99, POLICIES),
    "training.batch_size": (8, POLICIES),
    "training.learning_rate": (1e-3, POLICIES),
    "training.warmup_steps": (10, POLICIES),
    "training.final_learning_rate": (1e-6, POLICIES),
    "training.weight_decay": (0.1, POLICIES),
    "training.grad_clip_norm": (1.0, POLICIES),
    "training.ema_decay": (0.0, POLICIES),
    "training.seeds": (
        [0, 1],
        {"ckpt_*/seed_1", "ckpt_*/manifest.json", "rollouts/*/seed_1/*", "eval_*.json", "attention_*.parquet"}
        | {"prophet_*.json"}
        | LOOKS
        | PICKUP
        | DECISION,  # through the plan
    ),
    "training.save_every": (50, set()),
    "training.cache_frames": (False, set()),
    "training.loader_workers": (2, set()),
    "training.precision": ("bf16", POLICIES),
    "evaluation.tasks": (
        [0, 1, 2],
        evaluated("*", 2) | {"init_states/task_2/*", "attention_rollout_*"} | FAIRNESS | DECISION,
        {"demonstrations": {"tasks": [0, 1, 2]}},
    ),
    "evaluation.episodes": (  # old blocks stay
        30,
        {"init_states/*/block_2.parquet", "rollouts/*/block_2*", "videos/*", "eval_*.json", "attention_rollout_*"}
        | LOOKS
        | DECISION,
    ),
    "evaluation.max_episodes": (200, {"eval_*.json", "attention_rollout_*"} | DECISION, ADAPTIVE),
    "evaluation.blocks_per_round": (
        2,
        {"init_states/*/block_1.parquet", "rollouts/*/block_1*"} | LOOKS | DECISION,
        ADAPTIVE,
    ),
    "evaluation.block_size": (5, INIT_STATES | ROLLOUTS | {"attention_rollout_*"}),
    "evaluation.horizon": (100, ROLLOUTS),
    "evaluation.n_action_steps": (4, ROLLOUTS | {"attention_train_*"}),
    "evaluation.batch_size": (2, ROLLOUTS),
    "evaluation.video_size": (128, {"videos/*"}),
    "decision.pickup_tasks": ([0], LOOKS | PICKUP | DECISION),
    "decision.baseline": ("S0", {"looks/*_S0/*"} | PICKUP | FAIRNESS | DECISION),
    "decision.world": (
        "C",
        {"looks/C_E0/*", "looks/E2_E0/*"} | PICKUP | FAIRNESS | DECISION | ATTENTION,
        SPARE | {"run": ["E0", "E2", "C"]},
    ),
    "decision.wrist": (
        "C",
        {"looks/A_E0/*", "looks/C_E0/*"} | PICKUP | DECISION | ATTENTION,
        SPARE | {"decision": {"on_hurt": ["A", "C"]}},
    ),
    "decision.fusion": ("C", PICKUP | DECISION, SPARE),
    "decision.wrist_experiment": ("if_world_hurts", PICKUP | FAIRNESS | DECISION | ATTENTION | DRAWN_PROPHETS),
    "decision.on_hurt": (["A", "C"], NEW_C | CONTROLS | PICKUP | FAIRNESS | DECISION, SPARE),
    "decision.on_success": (["C"], CONTROLS | PICKUP | DECISION, SPARE),
    "decision.min_baseline_success": (0.3, DECISION),
    "decision.confidence": (0.8, LOOKS | DECISION),
    "decision.margin": (0.05, LOOKS | DECISION),
    "decision.claim": ("methods", LOOKS | DECISION, {"training": {"seeds": [0, 1]}}),
    "decision.stopping": ("anytime", LOOKS | DECISION),
    "decision.power": (0.9, DECISION),
    "decision.when_inconclusive": ("extend", DECISION),
    "decision.min_world_effect": (0.1, DECISION),
    "budget.gpu_hours": (1000, PICKUP | DECISION),
    "budget.gpus": (2, PICKUP | DECISION),
    "commits": ({"me/smolvla@main": COMMITS[1]}, {"policy"}, A_BRANCH),
    "costs.full.train.one": (99, NOTHING),  # of another scale
    "costs.embedded.latents.front": (99, NOTHING),  # E2 has made these
    "costs.embedded.latents.wrist": (99, PICKUP | DECISION),
    "costs.embedded.train.none": (99, DECISION),  # of E0, which more seeds would take
    "costs.embedded.train.one": (99, PICKUP | DECISION),
    "costs.embedded.train.both": (99, PICKUP | DECISION, SPARE | {"decision": {"on_success": ["C"]}}),
    "costs.embedded.evaluate.none": (99, DECISION),
    "costs.embedded.evaluate.one": (99, PICKUP | DECISION),
    "costs.embedded.evaluate.both": (99, NOTHING),
    "costs.embedded.episodes": (99, DECISION),
    "figures.task_colors": (["#123456"], FIGURES),
    "figures.pickup_color": ("#123456", FIGURES),
    "run": (["E0", "E2", "E2-zero", "S0", "C"], NEW_C | CONTROLS | PICKUP | FAIRNESS | DECISION, SPARE),
    "options.A.label": ("another", DECISION),
    "options.A.cameras": (["front"], {"ckpt_A/seed_0", *evaluated("A"), *examined("A")} | PICKUP | DECISION),
    "options.E2-zero.memory": ("predicted", evaluated("E2-zero") | DECISION),
    "options.A.window": (8, {"latents_wrist_m8.parquet", "ckpt_A/seed_0", *examined("A")} | PICKUP | DECISION),
    "options.E2-zero.rollout_cameras": (["wrist"], evaluated("E2-zero") | DECISION),
    "options.E2-zero.rollout_noise": (1, evaluated("E2-zero") | DECISION),
    "options.E2-zero.rollout_window": (1, evaluated("E2-zero") | DECISION),
    "options.S0.images": ("seen", {"ckpt_S0/seed_0", *evaluated("S0")} | DECISION),
    "options.E2-zero.checkpoint_of": ("A", evaluated("E2-zero") | PICKUP | DECISION),
    "options.A.training": ({"learning_rate": 1e-3}, {"ckpt_A/seed_0"}),
    "options.A.training.learning_rate": (1e-3, {"ckpt_A/seed_0"}),
    "options.A.training.warmup_steps": (9, {"ckpt_A/seed_0"}),
    "options.A.training.final_learning_rate": (1e-6, {"ckpt_A/seed_0"}),
    "options.E9": ({"label": "new", "cameras": ["front"]}, set()),
}


def merged(config, changes):
    """A config with changes merged into it, section by section, as Snakemake merges config files."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merged(config[key], value)
        else:
            config[key] = copy.deepcopy(value)
    return config


def change(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def jobs_by_output(folder, config):
    overlay = folder / "config.yaml"
    overlay.write_text(yaml.safe_dump(config))
    jobs = plan(["all"], folder, [overlay]).jobs
    return {output.removeprefix("results/"): job for job in jobs for output in job.outputs}


def reached(before, after):
    """Outputs whose job is new, or has other params, inputs or command."""
    old, new = ({o: (j.params, j.inputs, j.command) for o, j in jobs.items()} for jobs in (before, after))
    return {output for output, job in new.items() if old.get(output) != job}


MAPPINGS = {"options": Option, "costs": Costs}


def leaves(model, prefix=""):
    """Dotted keys of every leaf of a model; an option's are written `options.*.<key>`, a scale's `costs.*.<key>`."""
    for name, field in model.model_fields.items():
        inner = [t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(t, type)]
        section = next((t for t in inner if issubclass(t, BaseModel)), None)
        if name == "image_keys":
            yield from (f"{prefix}{name}.{camera}" for camera in ("front", "wrist"))
        elif name in MAPPINGS:
            yield from leaves(MAPPINGS[name], f"{name}.*.")
        elif section:
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


ALL_LEAVES = sorted(leaves(Experiment))


def test_every_key_states_what_an_edit_of_it_rebuilds():
    assert [leaf for leaf in ALL_LEAVES if not fnmatch.filter(KEYS, leaf)] == [], "say in KEYS what an edit rebuilds"


@pytest.fixture(scope="module")
def jobs_before(tmp_path_factory):
    """jobs_before(CONFIG): most edits start from one of a few configs, and each is planned once."""
    planned = {}

    def jobs_before(config):
        text = yaml.safe_dump(config)
        if text not in planned:
            planned[text] = jobs_by_output(tmp_path_factory.mktemp("before"), config)
        return planned[text]

    return jobs_before


@pytest.mark.parametrize("key", KEYS)
def test_an_edit_rebuilds_what_is_stated_and_nothing_else(tmp_path, jobs_before, key):
    value, stated, *start = KEYS[key]
    # All of it is planned where nothing waits for a look.
    always = {"decision": {"wrist_experiment": "always", "stopping": "fixed"}, "evaluation": {"episodes": 20}}
    base = merged(merged(copy.deepcopy(CONFIG), always), start[0] if start else {})
    before = jobs_before(base)
    whole = isinstance(value, dict) and "source" in value
    edit = change(key.rpartition(".")[0] if whole else key, value)
    after = jobs_by_output(tmp_path, merged(copy.deepcopy(base), edit))
    wanted = {output for pattern in stated for output in fnmatch.filter(after, pattern)}
    assert reached(before, after) == wanted
    for pattern in stated:
        assert fnmatch.filter(after, pattern), f"nothing is called {pattern}"


def test_an_edit_of_the_wrist_option_rebuilds_nothing_if_the_branch_did_not_ask_for_it(tmp_path):
    before = jobs_by_output(tmp_path, CONFIG)
    edit = change("options.A.training.learning_rate", 1e-3)
    assert reached(before, jobs_by_output(tmp_path, merged(copy.deepcopy(CONFIG), edit))) == set()


def test_no_artifact_is_made_from_a_video(tmp_path):
    always = change("decision.wrist_experiment", "always")
    jobs = jobs_by_output(tmp_path, merged(copy.deepcopy(CONFIG), always))
    assert fnmatch.filter(jobs, "videos/A/*")
    assert {job.rule for job in jobs.values() if any("videos/" in path for path in job.inputs)} <= {"all"}


def test_a_swap_of_two_values_is_noticed(tmp_path):
    swapped = {"latents": {"batch_size": 4}, "world": {"window": 64}}
    before, after = (jobs_by_output(tmp_path, merged(copy.deepcopy(CONFIG), c)) for c in ({}, swapped))
    old, new = (set(jobs["latents_front.parquet"].params.values()) for jobs in (before, after))
    assert old != new


def test_no_job_has_two_params_that_could_swap_their_values(tmp_path):
    for output, job in jobs_by_output(tmp_path, CONFIG).items():
        plain = [name for name, value in job.params.items() if not value.startswith(("{", "--"))]
        assert len(plain) <= 1, output


# ---- sources --------------------------------------------------------------------------------------------------------

PROGRAMS = {
    "record_demonstrations": "scripts/record_demonstrations.py",
    "draw_init_states": "scripts/draw_init_states.py",
    "aggregate_demonstrations": "scripts/aggregate_demonstrations.py",
    "place_repository": "scripts/place_repository.py",
    "build_encoder": "scripts/build_encoder.py",
    "build_vlm": "scripts/build_vlm.py",
    "pretrain_encoder": "scripts/pretrain_encoder.py",
    "replay_demonstrations": "scripts/replay_demonstrations.py",
    "probe_encoder": "scripts/probe_encoder.py",
    "encode_latents": "scripts/precompute_world_latents.py",
    "train_policy": "world_modality/train_llm_vla.py",
    "write_manifest": "scripts/write_manifest.py",
    "evaluate_policy": "scripts/evaluate_policy.py",
    "record_videos": "scripts/record_videos.py",
    "collect_evaluation": "scripts/collect_evaluation.py",
    "look_at_comparison": "scripts/look_at_comparison.py",
    "judge_pickup": "scripts/judge_pickup.py",
    "audit_fairness": "scripts/audit_fairness.py",
    "decide": "scripts/decide.py",
    "measure_prophet": "scripts/measure_prophet.py",
    "measure_attention": "scripts/measure_attention.py",
    "collect_attention": "scripts/collect_attention.py",
    "compare_attention": "scripts/compare_attention.py",
    "plot_figure": "scripts/plot_figure.py",
}
ROLLED_OUT = {"evaluate_policy", "record_videos"}
EXAMINED = {"measure_prophet", "measure_attention"}
POLICY_CODE = {"train_policy", "evaluate_policy", *EXAMINED}
PLOTTED = {"plot_figure"}
DRAWN = {"draw_init_states", *ROLLED_OUT}
ENCODED = {"encode_latents", "pretrain_encoder", "probe_encoder"}
RECORDED = {"record_demonstrations", "aggregate_demonstrations"}
TREE = {"judge_pickup", "decide"}
JUDGED = TREE | {"look_at_comparison"}
SIMULATED = RECORDED | DRAWN | {"replay_demonstrations"}
EVALUATED = ROLLED_OUT | {"collect_evaluation", "audit_fairness"} | JUDGED | PLOTTED
# module -> rules whose artifacts its code makes
MODULES = {
    "world_modality/__init__.py": set(PROGRAMS),
    "world_modality/examination/attention.py": {"collect_attention", "compare_attention", "measure_attention"}
    | {"evaluate_policy"}
    | PLOTTED,
    "world_modality/examination/attention_patterns.py": {"compare_attention"} | PLOTTED,
    "world_modality/report/attention_text.py": {"compare_attention"},
    "world_modality/latents/backbones.py": {"build_encoder", "build_vlm"},
    "world_modality/evaluation/actions.py": ROLLED_OUT,
    "world_modality/evaluation/blocks.py": {"evaluate_policy"},
    "world_modality/evaluation/drawing.py": {"draw_init_states"},
    "world_modality/evaluation/films.py": {"record_videos"},
    "world_modality/evaluation/pilot.py": {"evaluate_policy"},
    "world_modality/evaluation/simulators.py": {"evaluate_policy"},
    "world_modality/simulation/benchmark.py": SIMULATED,
    "world_modality/simulation/observation.py": SIMULATED,
    "world_modality/experiment/branches.py": TREE | PLOTTED,
    "world_modality/decision/evaluations.py": JUDGED | {"audit_fairness"} | PLOTTED,
    "world_modality/cluster.py": NOTHING,
    "world_modality/experiment/config.py": NOTHING,
    "world_modality/experiment/costs.py": NOTHING,
    "world_modality/data/contract.py": {"place_repository", "replay_demonstrations"} | ENCODED | POLICY_CODE,
    "world_modality/data/dataset.py": {"place_repository", "replay_demonstrations"} | ENCODED | POLICY_CODE,
    "world_modality/data/decoding.py": ENCODED | POLICY_CODE,
    "world_modality/data/stored.py": {"place_repository", "replay_demonstrations"} | ENCODED | POLICY_CODE,
    "world_modality/decision/looks.py": JUDGED | PLOTTED,
    "world_modality/decision/methods.py": JUDGED | PLOTTED,
    "world_modality/decision/tree.py": TREE | PLOTTED,
    "world_modality/data/demonstrations.py": RECORDED | {"replay_demonstrations"},
    "world_modality/artifacts/documents.py": JUDGED
    | PLOTTED
    | {"audit_fairness", "compare_attention", "measure_prophet"},
    "world_modality/latents/encoder.py": ENCODED | POLICY_CODE,
    "world_modality/errors.py": NOTHING,
    "world_modality/evaluation/episodes.py": EVALUATED,
    "world_modality/simulation/expert.py": RECORDED | {"draw_init_states"} | {"replay_demonstrations"},
    "world_modality/decision/fairness.py": {"audit_fairness"},
    "world_modality/report/figures.py": PLOTTED,
    "world_modality/artifacts/files.py": NOTHING,
    "world_modality/examination/foresight.py": {"measure_prophet"} | TREE | PLOTTED,
    "world_modality/data/hub.py": {"place_repository"},
    "world_modality/data/pins.py": NOTHING,
    "world_modality/evaluation/init_states.py": DRAWN,
    "world_modality/decision/judgement.py": JUDGED | PLOTTED,
    "world_modality/latents/table.py": ENCODED | POLICY_CODE,
    "world_modality/latents/transfer.py": ENCODED | POLICY_CODE,
    "world_modality/report/lineage.py": NOTHING,
    "world_modality/training/loop.py": {"train_policy"},
    "world_modality/training/loader.py": {"train_policy", "measure_attention"},
    "world_modality/training/manifest.py": {"write_manifest"},
    "world_modality/experiment/inputs.py": NOTHING,
    "world_modality/experiment/paths.py": NOTHING,
    "world_modality/experiment/plan.py": TREE | PLOTTED,
    "world_modality/data/positions.py": {"replay_demonstrations", "probe_encoder"},
    "world_modality/latents/pretraining.py": {"pretrain_encoder", "probe_encoder"},
    "world_modality/preflight.py": NOTHING,
    "world_modality/latents/probe.py": {"probe_encoder"},
    "world_modality/program.py": NOTHING,
    "world_modality/progress.py": NOTHING,
    "lerobot_policy_world_modality/prophet.py": POLICY_CODE,
    "world_modality/examination/prophet_quality.py": {"measure_prophet"},
    "world_modality/artifacts/parquet.py": NOTHING,
    "world_modality/artifacts/provenance.py": NOTHING,
    "world_modality/decision/published.py": NOTHING,
    "world_modality/decision/unpaired.py": NOTHING,
    "world_modality/data/videos.py": {"place_repository", "replay_demonstrations"} | ENCODED | POLICY_CODE,
    "world_modality/decision/paired.py": JUDGED | PLOTTED,
    "world_modality/report/rebuild.py": NOTHING,
    "world_modality/artifacts/records.py": NOTHING,
    "world_modality/data/replay.py": {"replay_demonstrations"},
    "world_modality/evaluation/rollout.py": ROLLED_OUT,
    "world_modality/experiment/sections.py": NOTHING,  # fields and validators alone: test_sources.py refuses all else
    "world_modality/experiment/seeds.py": EVALUATED | {"draw_init_states"},
    "world_modality/simulation/libero.py": SIMULATED,
    "world_modality/artifacts/sources.py": NOTHING,
    "world_modality/experiment/specs.py": NOTHING,  # likewise
    "world_modality/simulation/environment.py": SIMULATED,
    "world_modality/simulation/physics.py": SIMULATED,
    "world_modality/simulation/pickup.py": SIMULATED | EVALUATED,
    "world_modality/simulation/rendering.py": SIMULATED,
    "world_modality/simulation/stages.py": ROLLED_OUT,
    "world_modality/decision/durations.py": JUDGED | PLOTTED,
    "world_modality/decision/effort.py": TREE | PLOTTED,
    "world_modality/decision/exact.py": JUDGED | PLOTTED,
    "world_modality/decision/pairs.py": JUDGED | PLOTTED,
    "world_modality/decision/power.py": JUDGED | PLOTTED,
    "world_modality/decision/sequential.py": JUDGED | PLOTTED,
    "world_modality/decision/statistics.py": JUDGED | PLOTTED,
    "world_modality/experiment/suites.py": SIMULATED | EVALUATED | ENCODED | POLICY_CODE | {"place_repository"},
    "world_modality/train_llm_vla.py": {"train_policy"},
    "world_modality/examination/training_attention.py": {"measure_attention"},
    "world_modality/report/decision_text.py": {"decide"},
    "world_modality/training/checkpoint.py": {"write_manifest", "audit_fairness"} | POLICY_CODE,
    "world_modality/training/unread.py": {"train_policy"},
    "world_modality/training/warm_start.py": {"train_policy"},
    "lerobot_policy_world_modality/__init__.py": POLICY_CODE,
    "lerobot_policy_world_modality/configuration_smolvla_world.py": POLICY_CODE,
    "lerobot_policy_world_modality/modeling_smolvla_world.py": POLICY_CODE,
    "lerobot_policy_world_modality/processor_smolvla_world.py": POLICY_CODE,
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the sources."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("scripts", "world_modality", "lerobot_policy_world_modality"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def repository(copied, monkeypatch):
    """The copy, to edit; it is restored afterwards."""
    texts = {path: path.read_text() for path in copied.rglob("*.py")}
    monkeypatch.setattr(sources, "REPOSITORY", copied)
    yield copied
    for path, text in texts.items():
        path.write_text(text)


def source_of_each_rule():
    return {rule: sources.source_code(program) for rule, program in PROGRAMS.items()}


def library():
    """Every module of the library, and the `__init__` of every package within it, by its path in the repository."""
    folders = ("world_modality", "lerobot_policy_world_modality")
    files = {path.relative_to(REPOSITORY) for folder in folders for path in (REPOSITORY / folder).rglob("*.py")}
    packages = {path for path in files if path.name == "__init__.py" and len(path.parts) > 2}
    return files - packages, packages


def test_every_module_states_what_an_edit_of_it_rebuilds():
    assert sorted(MODULES) == sorted(map(str, library()[0]))


def test_the_init_of_a_package_holds_no_code():
    for path in library()[1]:
        assert [type(node) for node in ast.parse((REPOSITORY / path).read_text()).body] == [ast.Expr], path


def test_every_rule_names_the_program_it_runs(tmp_path):
    for job in (job for job in plan(["all"], tmp_path).jobs if job.outputs):
        program = PROGRAMS[job.rule]
        assert program.split("/")[-1].removesuffix(".py") in job.command
        assert job.params["source"] == sources.source_code(program)


@pytest.mark.parametrize("module", MODULES)
def test_an_edit_of_a_module_rebuilds_what_it_makes_and_nothing_else(repository, module):
    before = source_of_each_rule()
    with (repository / module).open("a") as file:
        file.write("\n_EDITED = True\n")
    after = source_of_each_rule()
    assert {rule for rule in PROGRAMS if before[rule] != after[rule]} == MODULES[module]


@pytest.mark.parametrize("rule", PROGRAMS)
def test_an_edit_of_a_program_rebuilds_what_it_makes_and_nothing_else(repository, rule):
    before = source_of_each_rule()
    with (repository / PROGRAMS[rule]).open("a") as file:
        file.write("\n_EDITED = True\n")
    after = source_of_each_rule()
    assert {r for r in PROGRAMS if before[r] != after[r]} == {rule}


def test_an_edit_of_comments_and_docstrings_rebuilds_nothing(repository):
    before = source_of_each_rule()
    for path in repository.rglob("*.py"):
        text = path.read_text()
        text = text.replace('"""', '"""Edited. ', 1) if text.startswith('"""') else text
        path.write_text(f"{text}\n# edited\n")
    assert source_of_each_rule() == before


# ---- the words ------------------------------------------------------------------------------------------------------


def test_changes_are_explained_only_by_keys_that_the_config_has():
    known = {leaf.replace("options.*", "options.{option}") for leaf in ALL_LEAVES}
    sections = {leaf.rpartition(".")[0] for leaf in known} | {leaf.partition(".")[0] for leaf in known}
    for rule, keys in CONFIG_KEYS.items():
        for key in keys.values():
            assert key in known | sections, f"{rule}: {key}"
