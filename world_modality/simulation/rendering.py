"""Pictures of the scene: an offscreen OpenGL context, and the faces that `fast` leaves out.

Pixels depend on the render settings (`Simulation.render`), so training and evaluation must share them. Without a GPU
an image takes as long as drawing its faces: 293,000 of them, even for 64 x 64 pixels. `fast` draws a quarter of them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

import world_modality.simulation.environment  # noqa: F401

# isort: split
import mujoco

from world_modality.errors import InputError

GLContext = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext
MAX_IMAGE_SIZE = 1024  # [px]
FACES = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord")  # of a model: what its faces are made of
HIDDEN_GROUP = 5  # a group of geoms that is not drawn: MuJoCo draws groups 0 to 2
MESH_CELL = 0.006  # half a pixel of the front camera, at 64 pixels; a pixel of the wrist camera, near the table [m]


class Renderer:
    """An offscreen OpenGL context. It is kept through hard resets: they rebuild the same meshes and textures."""

    def __init__(self, model: mujoco.MjModel, settings: str):
        self._fast = settings == "fast"
        try:
            self._gl = GLContext(MAX_IMAGE_SIZE, MAX_IMAGE_SIZE)
            self._gl.make_current()
        except (RuntimeError, ValueError) as error:  # no such device, or none that this user may open
            raise InputError(f"MUJOCO_GL is {os.environ['MUJOCO_GL']}, but gives no OpenGL here: {error}") from None
        model.vis.global_.offwidth = model.vis.global_.offheight = MAX_IMAGE_SIZE
        if self._fast:
            model.vis.quality.offsamples = 0
        with fewer_faces(model) if self._fast else nullcontext():
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision shapes, which robosuite hides
        self._scene = mujoco.MjvScene(model, maxgeom=1000)  # making one takes a quarter of the time of drawing it
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = not self._fast

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """Draw what `camera` sees: (size, size, 3) uint8, rotated by 180 degrees from OpenGL's order."""
        self._gl.make_current()
        self._camera.fixedcamid = model.camera(camera).id
        groups = model.geom_group.copy()
        if self._fast:  # otherwise they might be seen in a reflection
            model.geom_group[out_of_view(model, data, self._camera.fixedcamid)] = HIDDEN_GROUP
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, mujoco.MjvPerturb(), self._camera, everything, self._scene)
        model.geom_group[:] = groups
        viewport = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(viewport, self._scene, self._context)
        pixels = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self._context)
        return np.ascontiguousarray(pixels[::-1, ::-1])

    def close(self) -> None:
        self._context.free()
        self._gl.free()


def out_of_view(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> np.ndarray:
    """Which geoms a square image cannot show: (geoms,) bool. OpenGL would test every face."""
    seen = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # the camera looks along -z
    angle = np.deg2rad(model.cam_fovy[camera]) / 2
    beyond = np.abs(seen[:, :2]).max(axis=1) * np.cos(angle) + seen[:, 2] * np.sin(angle)  # the nearest side's plane
    return (np.maximum(beyond, seen[:, 2]) > model.geom_rbound) & (model.geom_rbound > 0)  # a plane has no bound


@contextmanager
def fewer_faces(model: mujoco.MjModel) -> Iterator[None]:
    """In the block, all vertices of a mesh in the same cell of a grid of `MESH_CELL` are the first one of them."""
    whole = [(array, array.copy()) for array in (getattr(model, name) for name in (*FACES, "mesh_facenum"))]
    _merge_vertices(model)
    try:
        yield
    finally:
        for array, before in whole:
            array[:] = before


def _merge_vertices(model: mujoco.MjModel) -> None:
    for mesh in range(model.nmesh):
        vertices = _part(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
        faces, normals, texture = (
            _part(array, model.mesh_faceadr[mesh], model.mesh_facenum[mesh])
            for array in (getattr(model, name) for name in FACES)
        )
        x, y, z = np.floor((vertices - vertices.min(axis=0)) / MESH_CELL).astype(np.int64).T
        _, first, cell = np.unique((x << 40) + (y << 20) + z, return_index=True, return_inverse=True)
        merged = first[cell][faces]  # (faces, 3)
        corners = np.sort(merged, axis=1)
        whole = np.flatnonzero((corners[:, 0] < corners[:, 1]) & (corners[:, 1] < corners[:, 2]))
        _, distinct = np.unique(corners[whole], axis=0, return_index=True)
        kept = whole[np.sort(distinct)]
        if len(kept):  # otherwise the whole mesh is smaller than a cell
            faces[: len(kept)], normals[: len(kept)], texture[: len(kept)] = merged[kept], normals[kept], texture[kept]
            model.mesh_facenum[mesh] = len(kept)


def _part(array: np.ndarray, start: int, count: int) -> np.ndarray:
    return array[start : start + count]
