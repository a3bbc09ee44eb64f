"""Foresight: how well the Prophets of one option predict held-out episodes, the content of `prophet_<option>.json`.

It holds cosines between predicted and true latents in standard units, by k (frames ahead) and by view: each world
camera and, if there are several, `all` of them together. Prophet is compared with two predictions that need no model:
the last latent, and the last latent plus the mean change over the training episodes. `prophet_quality` measures them.
Light (no torch).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from world_modality.artifacts.documents import read_document
from world_modality.errors import InputError
from world_modality.experiment.sections import Camera, Cameras, ImageKey, OptionName, PositiveInt, Seed

FUSED = "all"  # the view of all world cameras together
PREDICTORS = ("prophet", "copy_last", "mean_delta")

Cosine = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Cosines(_Record):
    """Mean cosine of each prediction with the true latents; higher is better."""

    prophet: Cosine
    copy_last: Cosine = Field(description="for the last latent, as if nothing changed")
    mean_delta: Cosine = Field(description="for the last latent plus the mean change over the training episodes")


class Step(Cosines):
    k: PositiveInt = Field(description="frames ahead")
    frames: PositiveInt = Field(description="held-out frames that have a frame k ahead in their episode")


class View(_Record):
    """How well the latents of one world camera are predicted, or those of all of them together."""

    steps: list[Step] = Field(description="k = 1 to K")
    mean: Cosines = Field(description="over all pairs of a held-out frame and a frame ahead of it")
    episodes: PositiveInt = Field(description="held-out episodes of more than one frame, which have a future")
    episodes_better: Count = Field(description="in how many of these Prophet's mean is above copy-last's")

    @computed_field
    @property
    def beats_copy_last(self) -> bool:
        return self.mean.prophet > self.mean.copy_last

    @computed_field
    @property
    def beats_mean_delta(self) -> bool:
        return self.mean.prophet > self.mean.mean_delta

    @model_validator(mode="after")
    def _check(self):
        if self.episodes_better > self.episodes:
            raise ValueError(f"Prophet is better in {self.episodes_better} of {self.episodes} episodes")
        return self


class HeldOut(_Record):
    """One held-out episode."""

    episode: Count
    frames: PositiveInt


class Foresight(_Record):
    """`prophet_<option>.json`."""

    option: OptionName
    cameras: Annotated[Cameras, Field(min_length=1)] = Field(description="world cameras, in the order of their latents")
    image_keys: dict[Camera, ImageKey] = Field(description="of the world cameras")
    window: PositiveInt = Field(description="m, frames one latent covers [frames]")
    history: PositiveInt = Field(description="T_ctx, past latents Prophet sees [frames]")
    horizon: PositiveInt = Field(description="K, future latents Prophet predicts [frames]")
    training_episodes: PositiveInt = Field(description="episodes over which the mean change was taken")
    held_out: list[HeldOut] = Field(min_length=1)
    seeds: dict[Seed, dict[str, View]] = Field(min_length=1, description="by training seed and view")
    overall: dict[str, View] = Field(description="by view, from cosines averaged over the training seeds")

    @property
    def views(self) -> list[str]:
        return [*self.cameras, FUSED] if len(self.cameras) > 1 else [*self.cameras]

    @property
    def whole(self) -> View:
        """Everything Prophet predicts, over all training seeds."""
        return self.overall[self.views[-1]]

    @computed_field
    @property
    def beats_copy_last(self) -> bool:
        return self.whole.beats_copy_last

    @computed_field
    @property
    def beats_mean_delta(self) -> bool:
        return self.whole.beats_mean_delta

    @property
    def name(self) -> str:
        """The file name the pipeline gives it."""
        return f"prophet_{self.option}.json"

    @model_validator(mode="after")
    def _check(self):
        if set(self.image_keys) != set(self.cameras):
            raise ValueError(f"image_keys of {sorted(self.image_keys)}, cameras are {sorted(self.cameras)}")
        for views in (self.overall, *self.seeds.values()):
            if set(views) != set(self.views):
                raise ValueError(f"views {sorted(views)}, expected {sorted(self.views)}")
            for name, view in views.items():
                if len(view.steps) != self.horizon or any(step.k != i for i, step in enumerate(view.steps, start=1)):
                    raise ValueError(f"{name}: the steps are not k = 1 to {self.horizon}")
        return self

    def as_json(self) -> dict[str, Any]:
        """Plain data for `files.write_json`."""
        return self.model_dump(mode="json")


def read_foresight(path: str | Path) -> Foresight:
    """Read `prophet_<option>.json`.

    Raises:
        InputError: it is missing, malformed, contradicts itself or has another option's name.
    """
    path = Path(path)
    foresight = read_document(Foresight, path, "a foresight")
    if path.name != foresight.name:
        raise InputError(f"{path}: holds what {foresight.name} should hold; was the file renamed or swapped?")
    return foresight
