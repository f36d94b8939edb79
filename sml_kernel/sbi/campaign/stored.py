"""A problem as files, so that workers and later sessions find the events of a campaign."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi.problems.exact import Exact, GaussianShift, MixtureFraction, SignedMixture
from sml_kernel.sbi.problems.interference import QuadraticInterference
from sml_kernel.sbi.problems.problem import Problem

if TYPE_CHECKING:
    from sml_kernel.sbi.stack.batches import Sample

_ARRAYS = ("features", "labels", "weights", "event_ids", "joint")
_EVENTS, _NAMES = "events.safetensors", "names.json"
_FAMILIES = (GaussianShift, MixtureFraction, SignedMixture, QuadraticInterference)


@dataclass(frozen=True, eq=False)
class Stored:
    """A problem, and the scale by which networks see its features.

    Attributes
    ----------
    mean, width
        [D] float32; a feature that never changes has width 1.
    """

    problem: Problem
    mean: np.ndarray
    width: np.ndarray

    def seen(self, features: np.ndarray) -> np.ndarray:
        """[N, D] features as networks see them, float32."""
        return ((features - self.mean) / self.width).astype(np.float32)

    def sample(self, pair: tuple[str, str], part: np.ndarray) -> Sample:
        """Events of two classes within a part, a mask [N]; the numerator is class 1."""
        from sml_kernel.sbi.stack.batches import sample

        numerator, reference = (self.problem.classes.index(name) for name in pair)
        keep = part & np.isin(self.problem.labels, (numerator, reference))
        labels = (self.problem.labels[keep] == numerator).astype(np.int64)
        weights, ids = self.problem.weights[keep], self.problem.event_ids[keep]
        joint = self.problem.joint
        ratio = None if joint is None else joint[keep, numerator] - joint[keep, reference]
        x = self.seen(self.problem.features[keep])
        return sample(x, labels, weights, ids=ids, joint_log_ratio=ratio)


def digest(problem: Problem) -> str:
    """16 hexadecimal digits of all that members learn from."""
    found = hashlib.sha256(json.dumps([problem.feature_names, problem.classes]).encode())
    for array in _arrays(problem).values():
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def store(problem: Problem, folder: Path) -> None:
    """Write a problem into a folder that is there.

    A family of densities is kept if it is one of this package; one of the user's own is not.
    """
    from safetensors.numpy import save_file

    arrays = _arrays(problem)
    width = problem.features.std(axis=0, dtype=np.float64)
    arrays["mean"] = problem.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    arrays["width"] = np.where(width > 0, width, 1).astype(np.float32)
    save_file(arrays, folder / _EVENTS)
    names = {
        "features": problem.feature_names,
        "classes": problem.classes,
        "exact": _described(problem.exact),
    }
    (folder / _NAMES).write_text(json.dumps(names, indent=2) + "\n")


def _arrays(problem: Problem) -> dict[str, np.ndarray]:
    found = {name: getattr(problem, name) for name in _ARRAYS}
    return {name: np.ascontiguousarray(each) for name, each in found.items() if each is not None}


def _described(exact: Exact | None) -> list | None:
    for family in _FAMILIES:
        if isinstance(exact, family):
            return [family.__name__, dataclasses.asdict(exact)]
    return None


@functools.lru_cache(maxsize=2)
def load(folder: Path, digest: str) -> Stored:
    """What `store` wrote; kept in memory, as every stack of a worker asks for it.

    Parameters
    ----------
    digest
        Of the problem: a folder that was removed and made anew is read anew.
    """
    from safetensors.numpy import load_file

    names = json.loads((folder / _NAMES).read_text())
    arrays = load_file(folder / _EVENTS)
    for array in arrays.values():
        array.flags.writeable = False
    mean, width = arrays.pop("mean"), arrays.pop("width")
    families = {each.__name__: each for each in _FAMILIES}
    exact = names["exact"] and families[names["exact"][0]](**names["exact"][1])
    labels = tuple(names["features"]), tuple(names["classes"])
    return Stored(
        Problem(**arrays, feature_names=labels[0], classes=labels[1], exact=exact), mean, width
    )
