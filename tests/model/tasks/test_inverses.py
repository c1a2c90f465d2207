"""Predictions become logits again: for every registered kind of task, with the same predictions and metrics.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl.evaluation.meter import new_metric
from mtl.model.tasks.inverses import cumulative_of, log_odds_of, log_p_of, sides_of
from mtl.model.tasks.losses import cumulative_log_p
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support import task_samples

B, T = 2000, 3
KINDS = TASKS.names()


def sample(kind: str) -> tuple[TaskSpec, TaskModule, Tensor, Tensor]:
    """The task, its module with fitted temperatures and thresholds, logits, and labels that follow them."""
    spec = task_samples.example(kind)
    outputs = task_samples.outputs_of(spec)
    n_outputs = spec.n_outputs(outputs)
    constants = spec.constants(task_samples.encoded(spec), outputs)
    module = task_samples.module_of(spec, n_outputs, *[constants] * T)
    for t in range(T):
        fitted = dict.fromkeys(spec.fitted, (0.4 + t,))
        if "threshold" in constants:
            fitted["threshold"] = tuple(0.3 + 0.1 * t for _ in constants["threshold"])
        module.decide(t, fitted)
    logits_BTO = torch.randn(B, T, n_outputs)
    predicted = module.predict(logits_BTO)
    answer = predicted[module.answer or ""]
    noise = torch.rand(B, T) < 0.3
    target = torch.where(noise if answer.ndim == 2 else noise[..., None], answer[torch.randperm(B)], answer)
    return spec, module, logits_BTO, target if target.is_floating_point() else target.long()


def metrics(spec: TaskSpec, module: TaskModule, logits_BTO: Tensor, target: Tensor) -> dict[str, Tensor]:
    everything = spec.model_copy(update={"metrics": tuple(spec.known_metrics)})
    metric = new_metric(module, dict.fromkeys(module.tasks, everything), torch.device("cpu"))
    metric.update(logits_BTO, target, torch.ones(B, T, dtype=torch.bool))
    return {name: value for name, value in metric.compute().items() if name in spec.known_metrics}


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_metrics_survive_the_way_back(kind: str) -> None:
    spec, module, logits_BTO, target = sample(kind)
    predicted = module.predict(
        logits_BTO.double()
    )  # in float32 a probability near 1 has lost digits of its logit
    back = module.logits_of(predicted)
    assert back.shape == logits_BTO.shape
    assert back.dtype == torch.float32
    again = module.predict(back)
    assert set(again) == set(predicted)
    for name, values in predicted.items():
        if values.is_floating_point():
            torch.testing.assert_close(again[name], values.to(again[name].dtype), rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(again[name], values)
    before, after = (metrics(spec, module, z, target) for z in (logits_BTO, back))
    assert set(before) == set(spec.known_metrics)
    for name, value_T in before.items():
        torch.testing.assert_close(after[name], value_T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_alone_give_the_metrics_of_answers(kind: str) -> None:
    spec, module, logits_BTO, target = sample(kind)
    predicted = module.predict(logits_BTO)
    assert module.answer is not None
    back = module.logits_of({module.answer: predicted[module.answer]})
    again = module.predict(back)[module.answer]
    torch.testing.assert_close(again, predicted[module.answer])
    assert set(spec.answer_metrics) <= set(spec.known_metrics)
    before, after = (metrics(spec, module, z, target) for z in (logits_BTO, back))
    for name in spec.answer_metrics:
        torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-6)
    for name in set(spec.known_metrics) - set(spec.answer_metrics):
        assert not torch.allclose(after[name], before[name], atol=1e-4), f"{name} needs no probabilities"


def test_a_probability_of_nought_or_one_has_a_finite_logit() -> None:
    assert log_odds_of(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([-87.3, 0, 36.0], abs=0.1)
    log_p = log_p_of(torch.tensor([[1.0, 0.0]]))
    assert log_p.tolist() == [[0.0, pytest.approx(-87.3, abs=0.1)]]
    r = cumulative_of(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert r.isfinite().all()
    assert cumulative_log_p(r.float()).argmax(-1).tolist() == [1, 0, 2]


def test_a_rounded_probability_at_the_threshold_keeps_its_side() -> None:
    threshold = torch.tensor([0.3, 0.3, 0.7])
    p = sides_of(torch.tensor([0.3, 0.29999, 0.7], dtype=torch.float64), threshold)
    z = log_odds_of(p).float()
    assert (z.sigmoid() >= threshold).tolist() == [True, False, True]


def test_two_ordered_classes_that_are_equally_probable_stay_with_the_first() -> None:
    p = torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.1, 0.45, 0.45]]).double()
    p = torch.cat([p.expand(500, 3, 3).reshape(-1, 3), torch.full((1, 3), 1 / 3).double()])
    assert torch.equal(cumulative_log_p(cumulative_of(p).float()).argmax(-1), p.argmax(-1))


def test_ordered_classes_keep_small_probabilities() -> None:
    p = torch.tensor([[0.5, 1e-9, 0.5 - 1e-9], [1e-12, 1e-6, 1 - 1e-6 - 1e-12]], dtype=torch.float64)
    back = cumulative_log_p(cumulative_of(p).float()).double().exp()
    np.testing.assert_allclose(back.numpy(), p.numpy(), rtol=1e-4)
