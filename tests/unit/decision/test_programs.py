"""The programs of the tree: `judge_pickup` and `decide`."""

import runpy
import subprocess
import sys

import pytest

from tests.unit.decision.samples import (
    AUDITED,
    PICKUP,
    REPOSITORY,
    content,
    contents,
    judged,
    read,
    spec,
)
from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import making
from world_modality.decision.tree import Pickup
from world_modality.experiment.plan import Plan
from world_modality.experiment.sections import Tree
from world_modality.experiment.specs import JudgeSpec


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The two scripts' command lines on evaluations that take the wrist branch."""
    monkeypatch.chdir(tmp_path)
    run = [f"eval_{option}_{task}.json" for option in ("E0", "E2") for task in PICKUP]
    judge = JudgeSpec.model_validate(spec().model_dump(include=set(JudgeSpec.model_fields)) | {"decision": tree()})
    *_, looks = judged(read(tmp_path, contents(E0=6, E2=4, A=7)), spec())
    for look in looks:
        looked_at(f"{look.pair[0]}_{look.pair[1]}.json", look)
    for (option, task), file in contents(E0=6, E2=4, A=7).items():
        collected(f"eval_{option}_{task}.json", file)
    wrist = [f"eval_A_{task}.json" for task in PICKUP]
    with making("fairness.json", str(REPOSITORY / "scripts" / "audit_fairness.py"), {}) as path:
        write_json(path, AUDITED)
    output = [
        "--pickup",
        "pickup.json",
        "--plan",
        "plan.json",
        "--fairness",
        "fairness.json",
        "--output-json",
        "decision.json",
        "--output-text",
        "decision.txt",
    ]
    return {
        "judge_pickup.py": ["--spec", judge.model_dump_json(), "--look", "E2_E0.json", "--output", "pickup.json"]
        + ["--output-plan", "plan.json"],
        "decide.py": ["--spec", spec().model_dump_json(), "--looks", "E2_E0.json", "A_E0.json"]
        + ["--evaluations", *run, *wrist, *output],
    }


def collected(name, file):
    """An evaluation with its provenance, as the pipeline leaves it."""
    with making(name, str(REPOSITORY / "scripts" / "collect_evaluation.py"), {}) as path:
        write_json(path, file)


def looked_at(name, look):
    with making(name, str(REPOSITORY / "scripts" / "look_at_comparison.py"), {}) as path:
        write_json(path, look.as_json())


def tree():
    return {name: getattr(spec().decision, name) for name in Tree.model_fields}


def call(name, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(REPOSITORY / "scripts" / name), run_name="__main__")


def test_the_programs_make_the_same_bytes_in_every_process(tmp_path, monkeypatch, programs):
    call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    assert Pickup.read(tmp_path / "pickup.json").scheduled == Plan.read(tmp_path / "plan.json").chosen == ["A"]
    call("decide.py", programs["decide.py"], monkeypatch)
    outputs = [tmp_path / "decision.json", tmp_path / "decision.txt"]
    here = [path.read_bytes() for path in outputs]
    subprocess.run([sys.executable, REPOSITORY / "scripts" / "decide.py", *programs["decide.py"]], check=True)
    assert [path.read_bytes() for path in outputs] == here


def test_an_unfair_comparison_ends_in_one_line_and_no_file(tmp_path, monkeypatch, programs):
    call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    file = content("A", 0, 7)
    file["episodes"][3]["env_seed"] = 4
    collected("eval_A_0.json", file)
    with pytest.raises(SystemExit) as stopped:
        call("decide.py", programs["decide.py"], monkeypatch)
    assert stopped.value.code == (
        "error: eval_A_0.json: initial state 3 of training seed 0: env_seed is 4, but 3 in eval_E0_0.json"
    )
    assert not list(tmp_path.glob("*decision*"))


def test_a_damaged_look_ends_in_one_line_and_no_file(tmp_path, monkeypatch, programs):
    path = tmp_path / "E2_E0.json"
    path.write_text(path.read_text().replace('"successes": 12', '"successes": 13', 1))
    with pytest.raises(SystemExit, match=r"error: E2_E0\.json: damaged or altered"):
        call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    assert not (tmp_path / "pickup.json").exists()


def test_a_wrong_spec_names_the_key(monkeypatch, programs, capsys):
    arguments = [part.replace('"confidence":0.9', '"confidence":95.0') for part in programs["decide.py"]]
    with pytest.raises(SystemExit):
        call("decide.py", arguments, monkeypatch)
    assert "argument --spec: decision.confidence: Input should be less than or equal to" in capsys.readouterr().err
