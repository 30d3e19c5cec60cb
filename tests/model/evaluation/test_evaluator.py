"""Failures, batches, time, and going on after an interruption."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.errors import UserError
from model.evaluation.cache import ResultCache
from model.evaluation.evaluator import evaluate
from model.evaluation.methods import Identity, build_method
from tests.model.evaluation.conftest import Bad


def without_time(measurements):
    return [
        (one.method, one.image, one.psnr, one.ssim, one.q, one.restored.tobytes()) for one in measurements
    ]


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("raise", "out of luck"),
        ("nan", r"1 of 4096 pixels are not finite: it diverged"),
        ("inf", r"1 of 4096 pixels are not finite: it diverged"),
        ("shape", r"the result has shape \(1, 1, 64, 63\), the picture \(1, 1, 64, 64\)"),
    ],
)
def test_a_failure_is_reported_and_the_rest_goes_on(pairs, way, reason, batch):
    failures = []
    methods = [Bad(pairs[1:2], way), Identity()]
    results = evaluate(methods, pairs, "pythonq", None, batch=batch, on_failure=failures.append)
    assert [(one.method, one.image) for one in results] == [
        ("bad", "a"), ("bad", "c"), ("blurred", "a"), ("blurred", "b"), ("blurred", "c"),
    ]  # fmt: skip
    (failure,) = failures
    assert (failure.method, failure.image) == ("bad", "b")
    assert re.fullmatch(reason, failure.reason)


def test_without_a_listener_a_failure_is_an_error(pairs):
    with pytest.raises(RuntimeError, match="out of"):
        evaluate([Bad(pairs[1:2], "raise")], pairs, "pythonq", None)
    with pytest.raises(UserError, match="not finite"):
        evaluate([Bad(pairs[1:2], "nan")], pairs, "pythonq", None)


def test_batches_give_what_single_pictures_give(pairs, setting, tiny_weights):
    narrow = replace(pairs[2], sharp=pairs[2].sharp[:, :48].copy(), blurred=pairs[2].blurred[:, :48].copy())
    mixed = [*pairs, narrow, pairs[0]]
    methods = [build_method("al:iterations=3", setting), build_method(f"unet:{tiny_weights}", setting)]
    one = evaluate(methods, mixed, "pythonq", None)
    many = evaluate(methods, mixed, "pythonq", None, batch=4)
    assert [(m.method, m.image) for m in one] == [(m.method, m.image) for m in many]
    for single, batched in zip(one, many, strict=True):
        # A convolution may sum a batch in another order: a pixel half-way between two levels may differ.
        difference = np.abs(single.restored.astype(int) - batched.restored)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
        assert batched.seconds > 0


def test_results_are_rounded_or_truncated(pairs, setting):
    method = build_method("al:iterations=3", setting)
    rounded, truncated = (
        evaluate([method], pairs, "pythonq", None, output=output)[0].restored
        for output in ("round", "truncate")
    )
    exact = method.restore(torch.from_numpy(pairs[0].observed)[None, None])[0, 0].clamp(0, 1).numpy() * 255
    assert np.array_equal(rounded, np.rint(exact))
    assert np.array_equal(truncated, np.floor(exact))


def test_time_is_the_median_of_runs_after_one_that_is_not_counted(pairs):
    method = Bad([], "raise")
    evaluate([method], pairs, "pythonq", None, repeats=3)
    # All three have one size: one run to warm up.
    assert method.calls == 1 + 3 * 3


def test_a_long_first_run_counts(pairs, monkeypatch):
    monkeypatch.setattr("model.evaluation.evaluator.LONG", 0.0)
    method = Bad([], "raise")
    results = evaluate([method], pairs, "pythonq", None)
    assert method.calls == 3
    assert all(one.seconds > 0 for one in results)


@pytest.fixture
def cache(tmp_path):
    return lambda **changed: ResultCache(
        tmp_path / "cache", **{"device": "cpu", "output": "round", "batch": 1, "repeats": 1, **changed}
    )


def test_an_interrupted_evaluation_goes_on_where_it_stopped(pairs, setting, cache):
    class Counted:
        def __init__(self, stop_after=None):
            self.inner, self.calls, self.stop = build_method("al:iterations=3", setting), 0, stop_after
            self.name, self.knows, self.key = self.inner.name, self.inner.knows, self.inner.key

        def restore(self, blurred):
            if self.calls == self.stop:
                raise KeyboardInterrupt
            self.calls += 1
            return self.inner.restore(blurred)

    undisturbed = evaluate([Counted()], pairs, "pythonq", None)
    with pytest.raises(KeyboardInterrupt):
        # One run to warm up, two that count: the third picture is never restored.
        evaluate([Counted(stop_after=3)], pairs, "pythonq", None, cache=cache())
    resumed = Counted()
    kept = cache()
    assert without_time(evaluate([resumed], pairs, "pythonq", None, cache=kept)) == without_time(undisturbed)
    assert (resumed.calls, kept.hits) == (2, 2)
    again = Counted()
    second = evaluate([again], pairs, "zhu2010", None, cache=cache())
    assert again.calls == 0
    # Metrics are measured anew, by what is asked for now.
    assert second[0].q != undisturbed[0].q
    assert second[0].seconds > 0


def test_kept_results_belong_to_method_pixels_and_setting(pairs, setting, cache):
    al, other = build_method("al:iterations=3", setting), build_method("al:iterations=4", setting)
    keys = {
        cache().key(al, pairs[0].observed),
        cache().key(other, pairs[0].observed),
        cache().key(al, pairs[1].observed),
        cache().key(al, pairs[0].observed.reshape(32, 128)),
        cache(device="cuda").key(al, pairs[0].observed),
        cache(output="truncate").key(al, pairs[0].observed),
        cache(batch=2).key(al, pairs[0].observed),
        cache(repeats=5).key(al, pairs[0].observed),
    }
    assert len(keys) == 8
    assert cache().key(al, pairs[0].observed) in keys
    assert cache().key(Identity(), pairs[0].observed) is None


def test_failures_are_not_kept_and_damaged_files_are_made_anew(pairs, setting, cache, tmp_path):
    method = Bad(pairs[:1], "nan")
    method.key = "bad"
    evaluate([method], pairs, "pythonq", None, cache=cache(), on_failure=lambda failure: None)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2
    for number, file in enumerate(files):
        file.write_bytes(b"" if number else file.read_bytes()[:40])
    method.calls = 0
    evaluate([method], pairs, "pythonq", None, cache=cache(), on_failure=lambda failure: None)
    assert method.calls > 3
