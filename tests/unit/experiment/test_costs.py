"""`make costs`: what a run's benchmark files say of the costs, in a file that a rerun's noise does not rewrite."""

import runpy
from pathlib import Path

import pytest
import yaml

from world_modality.artifacts.files import write_run_config
from world_modality.errors import InputError
from world_modality.experiment.config import COSTS, default_config, load_experiment
from world_modality.experiment.costs import measure, measured_episodes, scale_text, with_costs
from world_modality.experiment.sections import Costs
from world_modality.progress import report_resumed

REPOSITORY = Path(__file__).parents[3]
SECONDS = {"latents": 36, "train": 720, "block": 360, "film": 90}


ESTIMATES = Costs.model_validate(
    {
        "latents": {"front": 2, "wrist": 2},
        "train": {"none": 6, "one": 6, "both": 12},
        "evaluate": {"none": 4, "one": 4, "both": 4},
        "episodes": 20,
    }
)


def benchmark(folder, name, seconds):
    path = folder / "benchmarks/out" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds:.4f}\t0:00:00\t12.5\n")
    return path


def log(folder, training, text=""):
    path = folder / "logs/train_policy" / f"{training}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def run(tmp_path):
    """A folder in which the default experiment has run without a wrist branch: two tasks of one block, one seed."""
    config = default_config() | {"costs": {"embedded": ESTIMATES.model_dump()}}
    experiment = load_experiment(config)
    write_run_config(config, tmp_path / "results/run_config.yaml")
    benchmark(tmp_path, "encode_latents/front", SECONDS["latents"])
    for option in experiment.run:
        if not experiment.options[option].checkpoint_of:
            slower = 2 if experiment.options[option].cameras else 1
            benchmark(tmp_path, f"train_policy/{option}_seed_0", slower * SECONDS["train"])
            log(tmp_path, f"{option}_seed_0", "train E0 seed 0    300/300  loss 0.1    done in 12:00 min\n")
        for task in (0, 1):
            benchmark(tmp_path, f"record_videos/{option}_task_{task}", SECONDS["film"])
            benchmark(tmp_path, f"evaluate_policy/{option}_seed_0_task_{task}_block_0", SECONDS["block"])
    return tmp_path


def measured(folder):
    return measure(load_experiment(default_config()), folder)


def text(folder, before=ESTIMATES):
    episodes = measured_episodes(load_experiment(default_config()), folder)
    return scale_text(measured(folder), episodes, "embedded", before)


def written(folder, before=ESTIMATES):
    return yaml.safe_load(text(folder, before))["embedded"]


def test_jobs_are_counted_by_stage_and_cameras(run):
    evaluation = (2 * 360 + 2 * 90) / 3600
    found = measured(run)
    assert found["latents"] == {"front": [0.01], "wrist": []}
    assert found["train"] == {"none": [0.2, 0.2], "one": [0.4], "both": []}
    assert found["evaluate"] == {"none": [evaluation] * 2, "one": [evaluation] * 2, "both": []}


def test_a_training_that_was_interrupted_also_cost_what_it_had_done_before(run, capsys):
    report_resumed("train E2 seed 0", 60, 359.7)
    log(run, "E2_seed_0", f"a warning\n{capsys.readouterr().err}train E2 seed 0    300/300\n")
    assert measured(run)["train"] == {"none": [0.2, 0.2], "one": [0.5], "both": []}


def test_a_training_without_its_log_is_refused_because_nobody_knows_what_it_had_done_before(run):
    lacking = log(run, "E2_seed_0")
    lacking.unlink()
    with pytest.raises(InputError, match=rf"{lacking}: missing, and only it says whether the training was interrupted"):
        measured(run)


def test_what_was_not_measured_costs_what_the_dearest_of_its_stage_does(run):
    assert written(run) == {
        "latents": {"front": 0.01, "wrist": 0.01},
        "train": {"none": 0.2, "one": 0.4, "both": 0.4},
        "evaluate": {"none": 0.25, "one": 0.25, "both": 0.25},
        "episodes": 20,  # ten initial states of each of two tasks
    }
    assert "both: 0.4  # not measured" in text(run)


def second_round(folder, option):
    for task in (0, 1):
        benchmark(folder, f"evaluate_policy/{option}_seed_0_task_{task}_block_1", SECONDS["block"])


def test_an_option_that_stopped_early_costs_what_it_would_have_if_it_had_gone_on(run):
    for option in ("E0", "E2"):
        second_round(run, option)
    found = measured(run)["evaluate"]
    assert found["none"] == found["one"] == [pytest.approx((4 * 360 + 2 * 90) / 3600)] * 2
    assert written(run)["episodes"] == 40


def test_evaluations_of_other_lengths_are_not_taken_for_noise(run):
    """Twice the episodes in less than twice the time, which is within the noise of an old cost."""
    before = Costs.model_validate(written(run) | {"evaluate": {"none": 0.45, "one": 0.45, "both": 0.45}})
    for option in ("E0", "E2", "E2-zero", "S0"):
        second_round(run, option)
    assert written(run, before)["evaluate"]["one"] == 0.45
    assert written(run, before.model_copy(update={"episodes": 40}))["evaluate"]["one"] == 0.45
    for option in ("E0", "E2", "E2-zero", "S0"):
        benchmark(run, f"evaluate_policy/{option}_seed_0_task_0_block_1", 1.1 * SECONDS["block"])
    assert written(run, before)["evaluate"]["one"] == 0.46
    assert written(run, before.model_copy(update={"episodes": 40}))["evaluate"]["one"] == 0.45


def test_what_is_written_is_a_valid_overlay(run):
    load_experiment(default_config() | {"costs": {"embedded": written(run)}})


def test_the_noise_of_a_rerun_rewrites_nothing(run):
    before = Costs.model_validate(written(run))
    benchmark(run, "train_policy/E2_seed_0", 1.08 * 2 * SECONDS["train"])
    assert written(run, before) == before.model_dump()
    benchmark(run, "train_policy/E2_seed_0", 1.2 * 2 * SECONDS["train"])
    assert written(run, before)["train"]["one"] == 0.48


def test_where_no_costs_were_known_those_measured_stand(run):
    assert written(run, None) == written(run)


FILE = "# of all\ncosts:\n  full:  # a\n    train: 1  # b\n  smoke:\n    train: 2\n"


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("smoke", "# of all\ncosts:\n  full:  # a\n    train: 1  # b\n  smoke:  # new\n    train: 3\n"),
        ("full", "# of all\ncosts:\n  full:  # new\n    train: 3\n  smoke:\n    train: 2\n"),
        ("embedded", f"{FILE}  embedded:  # new\n    train: 3\n"),
    ],
)
def test_the_costs_of_other_scales_stand_with_their_comments(scale, expected):
    assert with_costs(FILE, scale, f"  {scale}:  # new\n    train: 3\n") == expected


@pytest.mark.parametrize("text", ["", "costs: {full: {train: 1}}", "costs:\n full:\n  train: 1", "# costs:\n"])
def test_a_file_that_is_laid_out_otherwise_is_refused(text):
    with pytest.raises(
        InputError, match=r"costs\.yaml: expected `costs:` and below it each scale on a line of its own"
    ):
        with_costs(text, "smoke", "  smoke:\n    train: 3\n")


def test_jobs_that_the_config_does_not_ask_for_are_passed_over(run):
    before = written(run)
    benchmark(run, "evaluate_policy/E2_seed_0_task_0_block_7", 10**6)
    benchmark(run, "train_policy/E9_seed_0", 10**6)
    assert written(run) == before


def test_a_run_that_did_not_end_is_refused_by_the_job_that_lacks(run):
    lacking = run / "benchmarks/out/evaluate_policy/S0_seed_0_task_1_block_0.tsv"
    lacking.unlink()
    with pytest.raises(InputError, match=rf"{lacking}: missing, though others of its option are there"):
        measured(run)


def test_a_folder_in_which_nothing_ran_is_refused(tmp_path):
    with pytest.raises(InputError, match="encode_latents: no benchmark file of this experiment; run it first"):
        measured(tmp_path)


@pytest.mark.parametrize("text", ["", "s\th:m:s\n", "s\th:m:s\n-\t-\n", "seconds\n3\n"])
def test_a_file_that_is_no_benchmark_is_refused(run, text):
    path = run / "benchmarks/out/train_policy/E2_seed_0.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{path}: not a benchmark file of Snakemake"):
        measured(run)


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["write_costs.py", *map(str, arguments)])
    runpy.run_path(str(REPOSITORY / "scripts/tools/write_costs.py"), run_name="__main__")


def test_the_program_writes_the_file_of_the_folder_it_is_run_in(run, monkeypatch):
    monkeypatch.chdir(run)
    call(monkeypatch, "--on", "two cores", "--output", "costs.yaml")
    text = (run / "costs.yaml").read_text()
    assert "  embedded:  # measured in a run on two cores [job-hours]" in text
    assert yaml.safe_load(text)["costs"] == default_config()["costs"] | {"embedded": written(run, None)}
    assert text.startswith(COSTS.read_text())
    assert all(len(line) <= 120 for line in text.splitlines())


def test_without_a_run_the_program_leaves_the_file_as_it_is(tmp_path, monkeypatch):
    before = COSTS.read_text()
    with pytest.raises(SystemExit, match=r"run_config\.yaml: no such file; run the experiment first"):
        call(monkeypatch, "--directory", tmp_path)
    assert COSTS.read_text() == before
