"""An episode is f(policy, task, init state, seeds); what no one looks at is not rendered, and nothing changes by it."""

import numpy as np
import pytest
import torch

from tests.unit.evaluation.scenes import CAMERAS, SIZE, Scene
from world_modality.evaluation.rollout import View, drive, rolling_out
from world_modality.experiment.seeds import env_seed, memory_seed, noise_seed


def play(pilot, scene):
    rolling = rolling_out(scene, pilot.spec, pilot.view, 0, 3, np.zeros(5))
    return drive(rolling, lambda ask: pilot.act([ask])[0].actions).episode


@pytest.mark.parametrize("n_action_steps", [1, 2, 4])
@pytest.mark.parametrize("option", ["E0", "E2", "E2-zero", "S0"])
def test_images_that_no_one_looks_at_change_nothing(pilot, option, n_action_steps):
    lazy, full = Scene(), Scene(show_all=True)
    driver = pilot(option, n_action_steps)
    assert play(driver, lazy) == play(driver, full)
    np.testing.assert_array_equal(lazy.actions, full.actions)


def test_skipped_frames_are_those_no_window_holds():
    """With chunks longer than the frames that the world modality sees, the first steps of a chunk are not rendered."""
    view = View(cameras=CAMERAS, world_cameras=("front",), world_frames=3, n_action_steps=4)
    assert [view.at(step) for step in range(9)] == [
        ["front", "wrist"],
        [],
        ["front"],
        ["front"],
        ["front", "wrist"],
        [],
        ["front"],
        ["front"],
        ["front", "wrist"],
    ]


@pytest.mark.parametrize(
    ("option", "between", "at_chunks"),
    [("E0", (), CAMERAS), ("E2", ("front",), CAMERAS), ("E2-zero", (), CAMERAS), ("S0", (), ())],
)
def test_each_option_renders_what_it_uses(pilot, option, between, at_chunks):
    scene = Scene()
    play(pilot(option, 2, horizon=6), scene)
    assert scene.rendered == [at_chunks, between, at_chunks, between, at_chunks, between, at_chunks]


def test_a_blind_policy_does_not_depend_on_what_is_shown(pilot):
    blind, seeing = Scene(), Scene(show_all=True)
    seeing._image = lambda camera: np.full((SIZE, SIZE, 3), 200, np.uint8)
    driver = pilot("S0", 2)
    play(driver, blind)
    play(driver, seeing)
    np.testing.assert_array_equal(blind.actions, seeing.actions)


def test_every_chunk_gets_the_noise_of_its_own_seed(pilot, monkeypatch):
    driver, drawn = pilot("E0", 2, horizon=6), []
    predict = driver.policy.predict_action_chunk
    monkeypatch.setattr(
        driver.policy, "predict_action_chunk", lambda b, noise: drawn.append(noise) or predict(b, noise)
    )
    play(driver, Scene())
    assert len(drawn) == 3
    for chunk, noise in enumerate(drawn):
        generator = torch.Generator().manual_seed(noise_seed(0, 3, chunk))
        assert torch.equal(noise, torch.randn(noise.shape, generator=generator))


def test_a_random_memory_shares_no_value_with_the_flow_noise(pilot, monkeypatch):
    """One seed for both would make the memory begin with the very noise that the actions are denoised from."""
    driver, noises, memories = pilot("E2", horizon=6, memory="random"), [], []
    predict, attend = driver.policy.chunk_attending_to, driver.policy.memory_from
    monkeypatch.setattr(
        driver.policy, "chunk_attending_to", lambda m, b, noise: noises.append(noise) or predict(m, b, noise)
    )

    def remember(sources):
        memories.append(attend(sources))
        return memories[-1]

    monkeypatch.setattr(driver.policy, "memory_from", remember)
    play(driver, Scene())
    drawn = [values.flatten().tolist() for values in [*noises, *memories]]
    assert len(drawn) == 6
    assert sum(map(len, drawn)) == len({value for values in drawn for value in values})


def test_no_two_streams_of_an_episode_have_one_seed():
    chunks = range(28)
    streams = [noise_seed(0, 3, chunk, stream) for chunk in chunks for stream in (0, 1)]
    streams += [memory_seed(0, 3, chunk) for chunk in chunks] + [env_seed(0, 3)]
    assert len(set(streams)) == len(streams)


def test_an_episode_ends_at_success(pilot):
    scene = Scene(success_at=5)
    episode = play(pilot("E0", 2), scene)
    assert episode.success
    assert episode.steps == 5 == len(scene.actions)


def test_an_episode_records_how_its_pickup_went(pilot):
    assert play(pilot("E0", 2), Scene()).pickup == {
        "furthest": "approached",
        "stage_steps": {"approached": 11},
        "grasp_attempts": 0,
        "slips": 0,
        "contact_to_closing": None,
    }


def test_an_episode_of_a_task_that_places_nothing_records_no_pickup(pilot):
    scene = Scene()
    scene.placement = scene.pickup_state = None
    assert play(pilot("E0", 2), scene).pickup is None


def test_zeroing_the_memory_changes_the_actions_of_a_policy_that_uses_it(pilot):
    seen, zeroed = Scene(), Scene()
    for option, scene in (("E2", seen), ("E2-zero", zeroed)):
        driver = pilot(option)
        torch.nn.init.ones_(driver.policy.cross_attention.gate)
        play(driver, scene)
    assert not np.array_equal(seen.actions, zeroed.actions)


# ---- several episodes at once ---------------------------------------------------------------------------------------


def asks(driver, numbers, chunks=2):
    """What each of some episodes asks for its first chunks: [chunk][episode]."""
    by_episode = []
    for number in numbers:
        asked, place = [], np.full(5, number)
        drive(
            rolling_out(Scene(), driver.spec, driver.view, 0, number, place),
            lambda ask, asked=asked: asked.append(ask) or np.zeros((2, 7), np.float32),
        )
        by_episode.append(asked[:chunks])
    return [list(chunk) for chunk in zip(*by_episode, strict=True)]


def served(driver, chunks):
    torch.manual_seed(0)
    return [driver.act(asked) for asked in chunks]


@pytest.mark.parametrize("memory", [None, "predicted", "random-scaled", "shuffle"])
def test_a_chunk_does_not_depend_on_what_else_is_in_the_batch(pilot, memory):
    option = "E2" if memory else "E0"
    crowd, alone = (pilot(option, batch_size=4, memory=memory) for _ in range(2))
    together = served(crowd, asks(crowd, [4, 5, 7]))
    by_itself = served(alone, asks(alone, [5]))
    for (_, among, _), (lonely,) in zip(together, by_itself, strict=True):
        np.testing.assert_array_equal(among.actions, lonely.actions)
        if memory:
            np.testing.assert_array_equal(among.attention.weights, lonely.attention.weights)
            np.testing.assert_array_equal(among.attention.memory_norm, lonely.attention.memory_norm)
    assert not np.array_equal(together[0][0].actions, together[0][1].actions)


def test_episodes_whose_row_is_the_same_are_served_one_after_the_other(pilot):
    crowd, alone = pilot("E2", batch_size=2), pilot("E2", batch_size=2)
    together = served(crowd, asks(crowd, [4, 6, 7]))
    for place, number in enumerate((4, 6, 7)):
        for chunks, (lonely,) in zip(together, served(alone, asks(alone, [number])), strict=True):
            np.testing.assert_array_equal(chunks[place].actions, lonely.actions)


def test_in_a_batch_of_one_a_pilot_predicts_what_lerobot_does(pilot):
    """LeRobot's way: the policy itself keeps the frames, and sees each control step."""
    driver = pilot("E2", horizon=12)
    torch.nn.init.ones_(driver.policy.cross_attention.gate)
    scene, chosen = Scene(), []
    play(driver, scene)
    again = pilot("E2", horizon=12)
    torch.nn.init.ones_(again.policy.cross_attention.gate)
    again.policy.reset()
    shown = Scene(show_all=True)
    observation = shown.reset(0, np.zeros(5), ())
    for step in range(12):
        batch = {"observation.state": torch.from_numpy(observation.state)[None], "task": [again._instruction]}
        for camera, key in again.spec.image_keys.items():
            batch[key] = torch.from_numpy(observation.images[camera]).permute(2, 0, 1)[None].float() / 255
        batch = again.preprocessor(batch)
        if step % 2:
            again.policy.observe_world(batch)
        else:
            seed = noise_seed(0, 3, step // 2)
            shape = (1, again.policy.config.chunk_size, again.policy.config.max_action_dim)
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                chunk = again.postprocessor(again.policy.predict_action_chunk(batch, noise=noise)[0, :2]).numpy()
        chosen.append(chunk[step % 2])
        observation, _ = shown.step(scene.actions[step], ())
    np.testing.assert_array_equal(chosen, scene.actions)
