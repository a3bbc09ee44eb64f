"""The decision with one command in a fresh clone: everything from a hub, at smoke scale, and nothing fetched before."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from world_modality.artifacts.files import read_json
from world_modality.artifacts.provenance import read_provenance

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
COMMIT, LATER = "1" * 40, "2" * 40
SECTIONS = ("demonstrations", "encoder", "vlm", "policy")
PINNED = {f"me/{section}@main": COMMIT for section in SECTIONS}
NARROW = {"run": ["E0", "E2"], "decision": {"wrist_experiment": "if_world_hurts"}}
PLACED = ("dataset", "encoder", "vlm", "policy")


class Hub(http.server.ThreadingHTTPServer):
    """A hub on this machine: it says where `main` is, lists the files of a commit, and sends them unless it stalls."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.main, self.files = {}, {}
        self.asked, self.sends = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def publish(self, kind, repo_id, commit, files):
        self.main[f"{kind}s/{repo_id}"] = commit
        self.files[f"{kind}s/{repo_id}", commit] = files

    def handle_error(self, request, client_address):
        """A client that was killed is no error."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, hub = self.path.partition("?")[0], self.server
        if found := re.fullmatch(r"/api/(\w+/me/\w+)/revision/(\w+)", path):
            repository, revision = found.groups()
            commit = revision if len(revision) == 40 else hub.main[repository]
            self.send({"id": repository.partition("/")[2], "sha": commit, "tags": [], "private": False})
        elif found := re.fullmatch(r"/api/(\w+/me/\w+)/tree/(\w+)", path):
            files = hub.files[found.groups()]
            self.send([{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in files.items()])
        else:
            self.send_file(path)

    do_HEAD = do_GET

    def send_file(self, path):
        kind, repo_id, commit, name = re.fullmatch(r"/(datasets/)?(me/\w+)/resolve/(\w+)/(.*)", path).groups()
        self.server.asked.set()
        self.server.sends.wait()
        content = self.server.files[f"{kind or 'models/'}{repo_id}", commit][name]
        self.send(content, {"ETag": f'"{hash(content)}"', "X-Repo-Commit": commit})

    def send(self, content, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(smoke, as_published):
    with Hub() as hub:
        for (kind, repo_id), files in as_published(smoke / "results", smoke / "results/dataset").items():
            hub.publish(kind, repo_id, COMMIT, files)
        yield hub
        hub.sends.set()
        hub.shutdown()


class Clone:
    """A fresh clone, and an experiment of its own in it."""

    def __init__(self, folder, environment):
        self.folder, self.run, self.commits = folder, folder / "runs/hub", folder / "experiments/commits.yaml"
        (folder / "hub.yaml").write_text(
            yaml.safe_dump(NARROW | {s: {"source": "hub", "repo_id": f"me/{s}", "revision": "main"} for s in SECTIONS})
        )
        self.environment = environment

    def start(self, *options, endpoint, target="results/decision.txt", run=None):
        """The one command, with options; or for another target, in another folder."""
        command = [Path(sys.executable).with_name("snakemake"), "--cores", "2", "--directory", run or self.run]
        command += ["--configfile", SMOKE, "hub.yaml", *options, "--", target]
        here = {"HF_ENDPOINT": endpoint, "HF_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        pipe, environment = subprocess.PIPE, self.environment | here
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def pins(self):
        return yaml.safe_load(self.commits.read_text())["commits"]


@pytest.fixture(scope="module")
def clone(clone_to, environment, tmp_path_factory):
    return Clone(clone_to(tmp_path_factory.mktemp("fresh").resolve() / "clone"), environment)


@pytest.fixture(scope="module")
def snakemake(clone, hub):
    """snakemake(*OPTIONS): what the one command prints; it must end well."""

    def snakemake(*options, **where):
        process = clone.start(*options, endpoint=f"http://127.0.0.1:{hub.server_port}", **where)
        out, err = process.communicate()
        assert process.returncode == 0, (out + err)[-8000:]
        return out + err

    return snakemake


@pytest.fixture(scope="module")
def without_network(clone):
    """How the command ends where the hub is out of reach."""
    process = clone.start(endpoint="http://127.0.0.1:9")
    _, err = process.communicate()
    return process.returncode, err, clone.pins(), sorted(path.name for path in clone.run.iterdir())


@pytest.fixture(scope="module")
def killed(clone, hub, without_network):
    """The pins that a run has left that was killed while it downloaded."""
    process = clone.start(endpoint=f"http://127.0.0.1:{hub.server_port}")
    assert hub.asked.wait(120)
    process.kill()
    process.communicate()
    hub.sends.set()
    return clone.pins(), [name for name in PLACED if (clone.run / "results" / name).exists()]


@pytest.fixture(scope="module")
def decided(snakemake, clone, hub, killed):
    """The results of the same command after that, though `main` has moved meanwhile."""
    for kind, section in (("dataset", "demonstrations"), ("model", "policy")):
        hub.publish(kind, f"me/{section}", LATER, {"config.json": b"{}"})
    snakemake("--unlock")
    snakemake()
    return clone.run / "results"


def test_without_a_network_one_line_says_what_to_do_and_nothing_has_begun(without_network):
    status, err, pins, left = without_network
    assert status == 1
    assert "Traceback" not in err
    assert re.fullmatch(
        r"error: dataset me/demonstrations@main: not in the hub's cache as a whole, and not to be had from the hub "
        r"\(.*\); run the same command, or `snakemake fetch`, where there is a network",
        err.splitlines()[-1],
    )
    assert (pins, left) == ({}, [".snakemake"])


def test_the_pins_are_written_before_anything_is_downloaded(killed):
    assert killed == (PINNED, [])


def test_the_one_command_fetches_trains_and_decides(decided, clone):
    assert (decided / "decision.txt").read_text()
    assert clone.pins() == PINNED
    assert clone.commits.read_text().startswith("# Why these.\n")


def test_what_was_placed_is_what_the_pinned_commits_hold(decided, smoke, files_of):
    assert files_of(decided / "dataset") == files_of(smoke / "results/dataset")
    assert files_of(decided / "policy") == files_of(smoke / "results/ckpt_E0/seed_0")
    assert read_provenance(decided / "dataset").spec["revision"] == COMMIT


def test_the_run_s_config_names_the_commits(decided):
    assert yaml.safe_load((decided / "run_config.yaml").read_text())["commits"] == PINNED
    assert read_json(decided / "dataset/provenance.json")["spec"]["revision"] == COMMIT


@pytest.mark.usefixtures("decided")
def test_a_second_run_does_nothing_though_the_branch_has_moved(snakemake, clone):
    assert "Nothing to be done" in snakemake()
    assert clone.pins() == PINNED


@pytest.fixture
def kept(clone):
    """A test may write the pins."""
    text = clone.commits.read_text()
    yield
    clone.commits.write_text(text)


@pytest.mark.usefixtures("decided", "kept")
def test_nothing_is_made_again_because_the_pins_were_not_kept(snakemake, clone):
    clone.commits.write_text("commits: {}\n")
    assert "Nothing to be done" in snakemake()


@pytest.mark.usefixtures("decided", "kept")
def test_an_edited_pin_places_that_repository_again_and_no_other(snakemake, clone):
    clone.commits.write_text(yaml.safe_dump({"commits": PINNED | {"me/policy@main": LATER}}))
    plan = snakemake("--dry-run")
    assert f"Fetch and place policy: me/policy@main (commit {LATER})" in plan
    assert len(re.findall("Fetch and place", plan)) == 1
    assert "Train option E0" in plan


@pytest.mark.usefixtures("decided", "kept")
def test_another_branch_that_is_not_pinned_yet_is_placed_once(snakemake, clone, tmp_path):
    """Snakemake would remember the params it compared with those of the last run, in which there was no commit."""
    where = {"target": "results/vlm", "run": shutil.copytree(clone.run, tmp_path / "run", symlinks=True)}
    (tmp_path / "next.yaml").write_text("vlm: {revision: next}\n")
    overlay = ("--configfile", SMOKE, "hub.yaml", tmp_path / "next.yaml")
    assert f"me/vlm@next (commit {COMMIT})" in snakemake(*overlay, **where)
    assert "Nothing to be done" in snakemake(*overlay, **where)
