"""The same work for each of many parts, here or on workers, in whatever order it gets done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sml_kernel.workers import Workers

Part = TypeVar("Part")
Result = TypeVar("Result")


class PartError(RuntimeError):
    """Parts that failed; the message says how many, and why the first did."""


def each_done(
    work: Callable[[Part], Result], parts: Sequence[Part], workers: Workers | None
) -> Iterator[tuple[Part, Result | Exception]]:
    """Parts as they get done, each with its result or with what it raised.

    Parameters
    ----------
    work
        A function of a module, or a partial of one, that workers can import.
    workers
        Of `launch`; None: this process, in order. When one is lost another takes its part over,
        and a part that was lost with several has failed; so have all that are left when the
        scheduler is lost.
    """
    if workers is None:
        for part in parts:
            try:
                result: Result | Exception = work(part)
            except Exception as error:
                result = error
            yield part, result
        return
    yield from _on_workers(work, parts, workers)


def all_done(
    work: Callable[[Part], Result],
    parts: Sequence[Part],
    workers: Workers | None,
    unit: str,
    progress: bool,
) -> Iterator[tuple[Part, Result]]:
    """As `each_done`, with a bar, and with an error at the end if parts failed.

    Raises
    ------
    PartError
        How many failed, and why the first did. All others have been done.
    """
    from tqdm.auto import tqdm

    failures = []
    with tqdm(total=len(parts), disable=not progress or not parts, unit=unit) as bar:
        for part, result in each_done(work, parts, workers):
            bar.update(1)
            if isinstance(result, Exception):
                failures.append((part, result))
            else:
                yield part, result
    if failures:
        part, error = failures[0]
        raise PartError(
            f"{len(failures)} of {len(parts)} tasks failed, the first of {part}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _on_workers(
    work: Callable[[Part], Result], parts: Sequence[Part], workers: Workers
) -> Iterator[tuple[Part, Result | Exception]]:
    from distributed import as_completed

    client = workers.client
    futures = {client.submit(work, part, pure=False): part for part in parts}
    try:
        for future in as_completed(futures):
            result: Result | Exception
            try:
                result = future.result()
            except Exception as error:  # its own, or that it is cancelled: the scheduler is lost
                result = error
            yield futures.pop(future), result
            future.release()
    finally:
        client.cancel(list(futures))
