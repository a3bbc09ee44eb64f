"""Episodes a minute of one checkpoint: `lerobot-eval`, `vla-eval`, and ours, from the same LIBERO initial states.

    python -m benchmarks.rollouts --states 4 --rounds 2
    python -m benchmarks.rollouts --checkpoint results/ckpt_E0/seed_0

`vla-eval` is in no lock. `pip install vla-eval==0.8.0` into the environment, or into a folder on `PYTHONPATH`, adds it
to the table. It is used from Python, without a container. Without `--checkpoint` the policy is a plain `smolvla` of the
default configuration that has hardly been trained, so its episodes run to the horizon. A checkpoint names its VLM by
path: run the command in the folder that holds its `results/`.

Ways, each in a process of its own that takes its turn in every round:

    lerobot-eval          one environment
    lerobot-eval, async   two, each in its process
    vla-eval              its LeRobot bridge and its LIBERO benchmark, in one process; nothing is recorded
    ours                  `evaluate_block`, `render: stock`, which is what the two others draw
    ours, two at a time   the same with two simulators
    ours, fast            `render: fast`; a policy trained on one sees other pixels with the other

So that outcomes can be compared, all are given the episode's own seeds, as ours are: fixtures, and the flow noise of
each chunk. `lerobot-eval` does not film (it would film its first ten episodes), and `vla-eval` draws images of the
policy's size, not of 256 pixels. With two environments LeRobot draws its own noise, so those outcomes differ by chance.

`whole` is the time from the begin of the evaluation, with everything imported, to its end. `set-up` is what of it does
not grow with the episodes: the time of an episode of a single step. Episodes a minute and control steps a second are of
the difference. CPU time (of all processes and threads) depends less on what else the machine does. `limit` is MuJoCo's
own time for a horizon of steps: 25 physics steps each, and two pictures for every chunk.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.control_step import physics
from benchmarks.memory import experiment, prepare
from world_modality.experiment.seeds import env_seed, noise_seed
from world_modality.experiment.specs import RolloutSpec

LIMIT, OURS = "limit", "ours"
AT_ONCE = {"lerobot-eval, async": 2, "ours, two at a time": 2}  # episodes that a way runs at the same time


@dataclass(frozen=True)
class Work:
    """What every way is asked to do."""

    checkpoint: str
    task: int
    states: int  # initial states 0 … states - 1 of LIBERO's benchmark
    horizon: int

    def spec(self, render: str = "stock") -> RolloutSpec:
        spec = experiment().rollout_spec("E0")
        simulation = spec.protocol.simulation.model_copy(update={"render": render})
        protocol = spec.protocol.model_copy(update={"horizon": self.horizon, "simulation": simulation})
        return spec.model_copy(update={"protocol": protocol})


Outcomes = list[tuple[bool, int]]  # success and control steps of each initial state


class EpisodeNoise:
    """The flow noise that our evaluation draws, for another tool's episodes of a task."""

    def __init__(self, task: int):
        self.task, self.state, self.chunk = task, 0, 0

    def begin(self, state: int) -> int:
        """Begin an episode; returns the seed of its reset."""
        self.state, self.chunk = state, 0
        return env_seed(self.task, state)

    def sample(self, shape: tuple[int, ...], device):
        import torch

        generator = torch.Generator().manual_seed(noise_seed(self.task, self.state, self.chunk))
        self.chunk += 1
        return torch.randn(shape, generator=generator).to(device)


@contextlib.contextmanager
def our_noise(task: int) -> Iterator[EpisodeNoise]:
    from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching

    noise = EpisodeNoise(task)
    with mock.patch.object(VLAFlowMatching, "sample_noise", lambda _, shape, device: noise.sample(shape, device)):
        yield noise


# ---- the ways -------------------------------------------------------------------------------------------------------


def lerobot_eval(work: Work, output: Path, environments: int = 1) -> Callable[[], Outcomes]:
    from lerobot.envs.libero import LiberoEnv
    from lerobot.scripts import lerobot_eval as tool

    protocol, outcomes = work.spec().protocol, []
    size = protocol.simulation.camera_size
    arguments = [
        f"--policy.path={work.checkpoint}",
        f"--policy.n_action_steps={protocol.n_action_steps}",
        "--policy.device=cpu",
        "--env.type=libero",
        f"--env.task={protocol.simulation.suite}",
        f"--env.task_ids=[{work.task}]",
        f"--env.episode_length={work.horizon}",
        f"--env.observation_height={size}",
        f"--env.observation_width={size}",
        f"--eval.n_episodes={work.states}",
        f"--eval.batch_size={environments}",
        f"--output_dir={output}",
    ]
    rollout, evaluate, reset = tool.rollout, tool.eval_policy_all, LiberoEnv.reset

    def watched(*args, **kwargs):
        played = rollout(*args, **kwargs)
        for done, success in zip(played["done"], played["success"], strict=True):
            steps = int(done.int().argmax()) + 1
            outcomes.append((bool(success[:steps].any()), steps))
        return played

    def run() -> Outcomes:
        output.mkdir()  # it would do so with its first film
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(tool, "rollout", watched))
            unfilmed = functools.partial(_unfilmed, evaluate)
            stack.enter_context(mock.patch.object(tool, "eval_policy_all", unfilmed))
            stack.enter_context(mock.patch.object(sys, "argv", ["lerobot-eval", *arguments]))
            if environments == 1:
                noise = stack.enter_context(our_noise(work.task))

                def seeded(env, seed=None, **kwargs):
                    return reset(env, seed=noise.begin(env.init_state_id), **kwargs)

                stack.enter_context(mock.patch.object(LiberoEnv, "reset", seeded))
            tool.eval_main()
        return outcomes[: work.states]

    return run


def _unfilmed(evaluate: Callable, **kwargs) -> dict:
    return evaluate(**kwargs | {"max_episodes_rendered": 0, "videos_dir": None})


def vla_eval(work: Work, output: Path) -> Callable[[], Outcomes]:
    from vla_eval import evaluate
    from vla_eval.benchmarks.libero import benchmark
    from vla_eval.model_servers.lerobot import LeRobotModelServer

    from world_modality.simulation.benchmark import libero_task

    protocol, libero = work.spec().protocol, benchmark.LIBEROBenchmark
    suite, settle, actions = protocol.simulation.suite, protocol.simulation.settle_steps, protocol.n_action_steps
    entry = {
        "benchmark": f"{benchmark.__name__}:LIBEROBenchmark",
        "episodes_per_task": work.states,
        "max_steps": work.horizon,
        "tasks": [libero_task(suite, work.task).language],
        # The state as LIBERO's data and LeRobot have it: its rotation is not turned into the shorter one.
        "params": {"suite": suite, "seed": 0, "num_steps_wait": settle, "quat_no_antipodal": True},
    }
    reset = libero.reset

    def run() -> Outcomes:
        with our_noise(work.task) as noise:

            def seeded(self, task):
                self.env_seed = noise.begin(task["episode_idx"])
                if self._env is not None:
                    self._env.seed(self.env_seed)
                return reset(self, task)

            with (
                mock.patch.object(libero, "reset", seeded),
                mock.patch.object(benchmark, "LIBERO_ENV_RESOLUTION", protocol.simulation.camera_size),
            ):
                server = LeRobotModelServer(
                    "smolvla",
                    work.checkpoint,
                    image_keys={"agentview": "image", "wrist": "image2"},
                    device="cpu",
                    chunk_size=actions,
                    policy_kwargs={"n_action_steps": actions},
                )
                results = evaluate(
                    server, {"benchmarks": [entry], "output_dir": str(output)}, docker=False, no_save=True
                )
        episodes = [episode for task in results[0]["tasks"] for episode in task["episodes"]]
        if failed := [episode["failure_detail"] for episode in episodes if "failure_detail" in episode]:
            raise SystemExit(f"an episode crashed: {failed[0]}")
        return [(bool(episode["metrics"]["success"]), episode["steps"]) for episode in episodes]

    return run


def ours(work: Work, output: Path, render: str = "stock", simulators: int = 1) -> Callable[[], Outcomes]:
    from world_modality.evaluation.blocks import BlockFiles, evaluate_block
    from world_modality.simulation.benchmark import benchmark_init_states

    spec = work.spec(render)
    protocol = spec.protocol.model_copy(update={"batch_size": simulators})
    spec = spec.model_copy(update={"protocol": protocol})
    states = dict(enumerate(benchmark_init_states(spec.protocol.simulation.suite, work.task)))
    files = BlockFiles(*(output.with_suffix(f".{kind}") for kind in ("episodes", "actions", "attention")))

    def run() -> Outcomes:
        evaluate_block(Path(work.checkpoint), spec, work.task, 0, range(work.states), states, files, simulators)
        rows = map(json.loads, files.episodes.read_text().splitlines())
        return [(row["success"], row["steps"]) for row in rows]

    return run


def mujoco_alone(work: Work, output: Path, render: str = "stock") -> Callable[[], Outcomes]:
    """MuJoCo's work in a control step, `horizon` times, and two pictures for every chunk; plays no episode."""
    from world_modality.simulation.libero import LiberoSimulation

    spec = work.spec(render)
    simulation = LiberoSimulation(spec.protocol.simulation, work.task)
    simulation.reset(0, cameras=("front", "wrist"))  # the first picture takes longer than any other

    def run() -> Outcomes:
        for step in range(work.horizon):
            physics(simulation)()
            if step % spec.protocol.n_action_steps == 0:
                for camera in ("front", "wrist"):
                    simulation.render(camera, spec.protocol.simulation.camera_size)
        return [(False, work.horizon)]

    return run


WAYS: dict[str, Callable[[Work, Path], Callable[[], Outcomes]]] = {
    "lerobot-eval": lerobot_eval,
    "lerobot-eval, async": functools.partial(lerobot_eval, environments=2),
    "vla-eval": vla_eval,
    "ours": ours,
    "ours, two at a time": functools.partial(ours, simulators=2),
    "ours, fast": functools.partial(ours, render="fast"),
    LIMIT: mujoco_alone,
    f"{LIMIT}, fast": functools.partial(mujoco_alone, render="fast"),
}


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    outcomes: Outcomes
    seconds: float
    cpu: float

    @property
    def steps(self) -> int:
        return sum(steps for _, steps in self.outcomes)


def measure(way: str, work: Work) -> None:
    """Do the work in this process, and print what it took as the last line."""
    with tempfile.TemporaryDirectory() as name:
        run = WAYS[way](work, Path(name) / "output")
        began, cpu = time.perf_counter(), _cpu_time()
        outcomes = run()
        print(json.dumps([outcomes, time.perf_counter() - began, _cpu_time() - cpu]))


def _cpu_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(way: str, work: Work) -> Measured:
    given = [str(value) for value in vars(work).values()]
    command = [sys.executable, "-m", "benchmarks.rollouts", "--measure", way, *given]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{way} failed:\n{ended.stderr[-2000:]}")
    outcomes, seconds, cpu = json.loads(ended.stdout.splitlines()[-1])
    return Measured([tuple(outcome) for outcome in outcomes], seconds, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="E0 of training seed 0 (one that has hardly been trained)")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--states", type=int, default=4, help="initial states of LIBERO's benchmark, from the first on")
    parser.add_argument("--horizon", type=int, default=220, help="[control steps]")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, checkpoint, *numbers = args.measure
        measure(way, Work(checkpoint, *map(int, numbers)))
        return
    ways = list(args.ways)
    if "vla-eval" in ways and importlib.util.find_spec("vla_eval") is None:
        print("vla-eval is not installed (pip install vla-eval==0.8.0): its row is left out.")
        ways.remove("vla-eval")
    with tempfile.TemporaryDirectory() as name:
        if not args.checkpoint:
            prepare(Path(name), 100)
        work = Work(args.checkpoint or f"{name}/ckpt", args.task, args.states, args.horizon)
        rounds: list[dict[str, tuple[Measured, Measured]]] = []
        for _ in range(args.rounds):
            rounds.append({way: both(way, work) for way in ways})
            report(ways, rounds)


def both(way: str, work: Work) -> tuple[Measured, Measured]:
    """What the set-up takes, and what the whole takes."""
    set_up = measured(way, Work(work.checkpoint, work.task, AT_ONCE.get(way, 1), horizon=1))
    whole = measured(way, work)
    print(f"{way}: {set_up.seconds:.1f} s, {whole.seconds:.1f} s", file=sys.stderr, flush=True)
    return set_up, whole


def report(ways: list[str], rounds: list[dict[str, tuple[Measured, Measured]]]) -> None:
    print(f"\nrounds: {len(rounds)}\noutcomes              success (control steps) of each initial state")
    for way in (way for way in ways if not way.startswith(LIMIT)):
        ends = [f"{'T' if success else 'F'} ({steps})" for success, steps in rounds[0][way][1].outcomes]
        print(f"{way:20}  {'  '.join(ends)}")
    speeds = {way: speed([one[way] for one in rounds]) for way in ways}
    titles = ("whole [s]", "set-up [s]", "episodes/min", "steps/s", "steps/CPU s", "ours to it", "by CPU time")
    print(f"\n{'way':20}" + "".join(f"{title:>13}" for title in titles))
    for way in ways:
        means = [np.mean([one[way][place].seconds for one in rounds]) for place in (1, 0)]
        faster = [speeds[OURS][key] / speeds[way][key] for key in ("seconds", "cpu")] if OURS in ways else []
        cells = [*means, *speeds[way].values(), *faster]
        print(f"{way:20}" + "".join(f"{cell:13.2f}" for cell in cells), flush=True)


def speed(rounds: list[tuple[Measured, Measured]]) -> dict[str, float]:
    """Episodes a minute, control steps a second and a CPU second, of what the whole takes beyond the set-up."""
    beyond = {key: sum(getattr(w, key) - getattr(s, key) for s, w in rounds) for key in ("steps", "seconds", "cpu")}
    per_episode = np.mean([steps for _, whole in rounds for _, steps in whole.outcomes])
    a_second = beyond["steps"] / beyond["seconds"]
    return {"episodes": 60 * a_second / per_episode, "seconds": a_second, "cpu": beyond["steps"] / beyond["cpu"]}


if __name__ == "__main__":
    main()
