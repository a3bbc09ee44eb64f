"""What the jobs of an experiment read follows from the config alone."""

import pytest

from world_modality.experiment import inputs
from world_modality.experiment.config import default_config, load_experiment


def experiment(**sections):
    config = default_config()
    for name, changes in sections.items():
        config[name] = config[name] | changes if isinstance(changes, dict) else changes
    return load_experiment(config)


def test_an_option_without_a_world_modality_reads_no_latents():
    assert inputs.training(experiment(), "E0") == {"dataset": "results/dataset", "vlm": "results/vlm"}


def test_an_option_with_a_window_of_its_own_reads_latents_of_its_own():
    wide = {"label": "a wide window", "cameras": ["wrist"], "window": 8}
    read = inputs.training(experiment(options={"A8": wide}), "A8")
    assert read["latents"] == ["results/latents_wrist_m8.parquet"]
    assert read["encoder"] == "results/encoder"


def test_a_pretrained_encoder_stands_behind_all_latents():
    pretrained = experiment(encoder={"pretrain_steps": 10})
    assert inputs.encoder(pretrained) == "results/encoder_pretrained"
    assert inputs.training(pretrained, "E2")["encoder"] == "results/encoder_pretrained"
    assert inputs.probed_encoders(pretrained) == {
        "untrained": "results/encoder",
        "pretrained": "results/encoder_pretrained",
    }


def test_a_row_that_borrows_a_checkpoint_rolls_out_that_one():
    assert inputs.rollout(experiment(), "E2-zero", 0)["checkpoint"] == "results/ckpt_E2/seed_0"
    assert inputs.checkpoints(experiment(), "E2", "E2-zero", "E0") == [
        "results/ckpt_E2/seed_0",
        "results/ckpt_E0/seed_0",
    ]


def test_every_training_seed_is_evaluated_and_the_first_is_filmed():
    seeds = experiment(training={"seeds": [3, 5]}, evaluation={"blocks_per_round": 2})
    blocks = [f"results/rollouts/A/seed_{s}/task_1/block_{b}.jsonl" for s in (3, 5) for b in (0, 1)]
    assert inputs.evaluated_blocks(seeds, "A", [1], rounds=1) == blocks
    filmed = inputs.filmed(seeds, "A", 1, rounds=1)
    assert filmed["blocks"] == blocks[:2]
    assert filmed["actions"] == [block.replace(".jsonl", "_actions.parquet") for block in blocks[:2]]


def test_a_look_reads_all_rounds_so_far_of_both_options_on_the_pickup_tasks():
    looked_at = inputs.look(experiment(decision={"pickup_tasks": [1]}), "E2-zero", "E2", rounds=3)
    rolled_out = "results/rollouts/{}/seed_0/task_1/block_{}.jsonl"
    assert looked_at["option"] == [rolled_out.format("E2-zero", block) for block in range(3)]
    assert looked_at["reference"] == [rolled_out.format("E2", block) for block in range(3)]
    assert looked_at["option_manifest"] == looked_at["reference_manifest"] == "results/ckpt_E2/manifest.json"


@pytest.mark.parametrize(("spread", "files"), [(0, []), (0.05, ["results/init_states/task_0/block_1.parquet"])])
def test_only_drawn_initial_states_are_files(spread, files):
    assert inputs.init_states(experiment(simulation={"spread": spread}), 0, [1]) == files


def test_foresight_is_measured_where_episodes_are_held_out_of_options_with_a_prophet():
    assert inputs.foresights(experiment(), ["E0", "E2", "E2-zero"]) == ["results/prophet_E2.json"]
    assert inputs.foresights(experiment(demonstrations={"held_out_per_task": 0}), ["E2"]) == []


def test_a_figure_is_drawn_from_the_artifact_it_shows():
    assert inputs.drawn(experiment(), "success") == ["results/decision.json"]
    assert inputs.drawn(experiment(), "prophet") == ["results/prophet_E2.json"]
