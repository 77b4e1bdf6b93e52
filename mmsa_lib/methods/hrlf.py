"""``hrlf``: hierarchical representation learning for missing modalities.

Source: Li, Yang, et al., "Toward Robust Incomplete Multimodal Sentiment Analysis via Hierarchical Representation
Learning", NeurIPS 2024, arXiv 2411.02793 [P]. A teacher learns from complete samples; a student of the same structure
then learns from incomplete copies of them to do and to represent the same (factorization FRF, mutual information HMI,
adversaries HAL, divergence KL). Network sizes and the distribution of gaps are not in the paper [R].

With all weights 1, as printed, the states collapse and both networks end as constants on the synthetic set [T]: FRF
outweighs the task loss, and in the student HAL alone is enough. None of what prevents it is in the paper: a smaller
``lambda_hal`` together with a smaller ``lambda_frf`` or ``frf_warmup``. ``frf_detach`` helps the teacher only.

The paper's two-class option for MOSI is left out: a class has no place on the label scale by which runs are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.missing import stochastic_missing, stochastic_validation
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.adversarial import discriminator_loss, hierarchical_adversarial, nonsaturating_adversarial
from mmsa_lib.losses.mutual_information import derangement, jsd_mutual_information
from mmsa_lib.methods.base import Method, Output, finite_log, sum_terms
from mmsa_lib.methods.hrlf_collapse import CollapseGuard
from mmsa_lib.methods.hrlf_config import HRLFConfig
from mmsa_lib.methods.hrlf_networks import HRLFNetwork, ScaleCritics, scale_widths
from mmsa_lib.nn.heads import to_label_scale

__all__ = ["HRLF", "HRLFConfig"]


class HRLF(Method):
    """A frozen teacher of complete samples and a student of incomplete ones, which alone predicts in the end.

    The teacher phase minimises the task loss and FRF on complete samples; its best epoch on the complete validation
    samples is kept. The student phase draws new gaps for each step and is validated on samples with fixed gaps.

    Attributes:
        phase: ``"teacher"`` or ``"student"``: which network :meth:`forward` runs.
        teacher: the teacher, or ``None`` with ``no_teacher``.
        statistics: ``T``, one per scale, trained with the student; ``None`` without HMI.
        discriminators: ``D_e``, one per scale, with an optimiser of their own; ``None`` without HAL.

    Representations: ``"<modality>/state"`` (Z), ``"<modality>/sentiment"`` (Q), ``"<modality>/specific"`` (U),
    ``"fusion"`` (H~, what the classifier reads).
    Auxiliary, in training: ``"scale/1"`` … ``"scale/3"`` (E); in the student phase, once the teacher has seen the
    complete samples, also ``"teacher/scale/1"`` … and ``"teacher/prediction"``.

    Raises:
        ConfigError: fewer than two modalities, or settings that contradict each other.
    """

    id = "hrlf"
    Config = HRLFConfig
    config: HRLFConfig
    phases = ("teacher", "student")
    own_missing: ClassVar[bool] = True

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: HRLFConfig):
        super().__init__(dims, task, config)
        self._check_settings()
        if config.no_teacher:
            self.phases = ("student",)
        self.phase = "student"
        self.epoch = 0
        self.gaps = torch.Generator()
        self.guard = CollapseGuard(config.collapse_guard)
        self.teacher = None if config.no_teacher else HRLFNetwork(self.dims, task.outputs, config)
        self.student = HRLFNetwork(self.dims, task.outputs, config)
        widths = scale_widths(len(self.dims), config)
        weights = self.loss_weights()
        self.statistics = ScaleCritics((2 * w for w in widths), config.critic_hidden) if weights["hmi"] else None
        self.discriminators = ScaleCritics(widths, config.critic_hidden) if weights["hal"] else None
        self._release(self.phase)

    @property
    def network(self) -> HRLFNetwork:
        """The network of this phase."""
        return self.teacher if self.phase == "teacher" else self.student

    def forward(self, batch: Batch) -> Output:
        """Predict with the network of this phase: after training, the student alone."""
        encoding = self.network(batch)
        representations = {f"{m}/state": z for m, z in encoding.states.items()}
        representations |= {f"{m}/sentiment": q for m, q in encoding.sentiment.items()}
        representations |= {f"{m}/specific": u for m, u in encoding.specific.items()}
        representations["fusion"] = encoding.fused
        auxiliary = {}
        if self.training:
            auxiliary = {f"scale/{i}": e for i, e in enumerate(encoding.scales(self.config.scale_merge), start=1)}
        return Output(to_label_scale(self.task, encoding.raw), representations, auxiliary)

    def taught(self, complete: Batch, output: Output) -> Output:
        """``output`` of the student with what the teacher makes of the ``complete`` samples as further auxiliaries."""
        if self.phase == "teacher" or self.teacher is None or "teacher/prediction" in output.auxiliary:
            return output
        with torch.no_grad():
            encoding = self.teacher(complete)
        scales = enumerate(encoding.scales(self.config.scale_merge), start=1)
        taught = {f"teacher/scale/{i}": e for i, e in scales}
        taught["teacher/prediction"] = to_label_scale(self.task, encoding.raw)
        return replace(output, auxiliary={**output.auxiliary, **taught})

    def loss_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``task``; in training also the terms whose weights are not 0.

        These are ``translation`` and ``reconstruction`` (together FRF), and in the student phase ``hmi``, ``hal`` and
        ``kl``. A single sample has no other to be shuffled with: such a batch has no ``hmi``.

        Args:
            batch: the complete samples; the teacher reads them.
            output: of the same samples, in the student phase of their incomplete copies.
        """
        if not self.training:
            return super().loss_terms(batch, output)
        terms = {"task": self._task_loss(output.prediction, batch.labels)}
        weights = self.loss_weights()
        if weights["translation"]:
            terms |= self._factorization(output)
        output = self.taught(batch, output)
        if weights["hmi"] and len(batch) > 1:
            terms["hmi"] = self._mutual_information(output)
        if weights["hal"]:
            terms["hal"] = self._adversarial(output)
        if weights["kl"]:
            terms["kl"] = self._divergence(output)
        return terms

    def loss_weights(self) -> dict[str, float]:
        """The four coefficients; 0 where switched off and in a phase without the term. Both parts of FRF weigh alike.

        With ``frf_warmup`` FRF has weight 0 in the first epoch of each phase and rises by equal steps.
        """
        config, taught = self.config, self.phase == "student" and not self.config.no_teacher
        frf = 0.0 if config.no_frf else config.lambda_frf
        if config.frf_warmup:
            frf *= min(1.0, max(0, self.epoch - 1) / config.frf_warmup)
        return {
            "translation": frf,
            "reconstruction": frf,
            "hmi": config.lambda_hmi if taught and not config.no_hmi else 0.0,
            "hal": config.lambda_hal if taught and not config.no_hal else 0.0,
            "kl": config.lambda_kl if taught and not config.no_kl else 0.0,
        }

    def optimizers(self) -> dict[str, Optimizer]:
        """``network``: the network of this phase, with the student also the statistics networks; ``discriminators``."""
        networks = [self.network]
        if self.phase == "student" and self.statistics is not None:
            networks.append(self.statistics)
        optimizers: dict[str, Optimizer] = {"network": self._adam(*networks)}
        if self.phase == "student" and self.discriminators is not None:
            optimizers["discriminators"] = self._adam(self.discriminators)
        return optimizers

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """One step of the teacher; or one of the discriminators, then one of the student on incomplete copies."""
        if self.phase == "teacher":
            return super().training_step(batch, optimizers)
        output = self.taught(batch, self(self._incomplete(batch)))
        apart = {}
        if "discriminators" in optimizers:
            apart["discriminators"] = self.discriminator_step(output, optimizers["discriminators"])
        optimizers["network"].zero_grad(set_to_none=True)
        raw = self.loss_terms(batch, output)
        weighted = self.weigh(raw)
        log = finite_log({**raw, **apart}, weighted)
        sum_terms(weighted).backward()
        optimizers["network"].step()
        return log

    def discriminator_step(self, output: Output, optimizer: Optimizer) -> Tensor:
        """Let the discriminators tell student from teacher better; returns their cross-entropy before the step."""
        optimizer.zero_grad(set_to_none=True)  # the student's step left gradients behind
        loss = discriminator_loss(*self._judge([e.detach() for e in _scales(output)], _scales(output, "teacher/")))
        loss.backward()
        optimizer.step()
        return loss.detach()

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Turn to the teacher or the student: release its networks, freeze the others, note the spread of its Z."""
        self.phase = phase
        self._release(phase)
        self.train(self.training)
        # Drawn from the seeded source: each run has gaps of its own, equal seeds have equal ones.
        self.gaps.manual_seed(int(torch.randint(2**62, ())))
        self.guard.start(self.network, train)

    def start_epoch(self, epoch: int) -> None:
        """Note the epoch; the warm-up of FRF depends on it."""
        self.epoch = epoch

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Spread of Z over samples: ``z_sd/<modality>`` and their mean ``z_sd``.

        Raises:
            RunError: the mean is below ``collapse_guard`` of its start.
        """
        return self.guard.check(self.network, f"{self.id}, {self.phase}, epoch {epoch}")

    def train(self, mode: bool = True) -> HRLF:
        """Training or evaluation mode; the frozen teacher stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.teacher is not None and self.phase == "student":
            self.teacher.eval()
        return self

    def prepare_validation(self, phase: str, valid: Utterances) -> Utterances:
        """The teacher is validated on complete samples, the student on those with fixed gaps that all methods share."""
        if phase == "teacher" or self.config.msm == "none":
            return valid
        return stochastic_validation(valid)

    def training_state(self) -> dict[str, Tensor]:
        """Where the source of the gaps is, and the spread of Z at the start of this phase."""
        return {"gaps": self.gaps.get_state(), "z_sd": self.guard.first}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the same gaps and the same reference for the guard."""
        self.gaps.set_state(state["gaps"].cpu())
        self.guard.first = state["z_sd"].cpu()

    def _incomplete(self, batch: Batch) -> Batch:
        return batch if self.config.msm == "none" else stochastic_missing(batch, self.gaps)

    def _task_loss(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error of a sentiment value [P]; selection is by the absolute error, as for all methods."""
        if self.task.kind == "regression":
            return F.mse_loss(prediction, labels)
        return self.task.loss(prediction, labels)

    def _factorization(self, output: Output) -> dict[str, Tensor]:
        """FRF in the network of this phase; the student factorizes its own states, as printed."""
        parts = (
            {m: output.representations[f"{m}/{name}"] for m in self.modalities}
            for name in ("state", "sentiment", "specific")
        )
        return self.network.factorization(*parts, detach_targets=self.config.frf_detach)

    def _mutual_information(self, output: Output) -> Tensor:
        """Equation 8: minus the bound between teacher and student, summed over scales; other pairs by a shuffle."""
        student, teacher = _scales(output), _scales(output, "teacher/")
        count = len(student[0])
        other = derangement(count, device=student[0].device)
        pairs = [
            torch.cat([t.repeat(2, 1), torch.cat([s, s[other]])], dim=-1) for t, s in zip(teacher, student, strict=True)
        ]
        bounds = [jsd_mutual_information(x[:count], x[count:]) for x in self.statistics(pairs)]
        return -torch.stack(bounds).sum()

    def _adversarial(self, output: Output) -> Tensor:
        """Equation 9, or the student's non-saturating form of it."""
        judged = self._judge(_scales(output), _scales(output, "teacher/"))
        if self.config.hal == "nonsaturating":
            return nonsaturating_adversarial(judged[0])
        return hierarchical_adversarial(*judged)

    def _judge(self, student: list[Tensor], teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of the discriminators for student and teacher, per scale ``(B,)``, in one call."""
        both = self.discriminators([torch.cat(pair) for pair in zip(student, teacher, strict=True)])
        count = len(student[0])
        return [x[:count] for x in both], [x[count:] for x in both]

    def _divergence(self, output: Output) -> Tensor:
        """``KL(teacher, student)``, a mean over samples (and emotions).

        Of softmax outputs, or of Gaussians of variance 1 around a sentiment value. The paper's softmax is not
        defined for such a value; ``(y_t - y_s)^2 / 2`` is its exact counterpart [R].
        """
        teacher, student = output.auxiliary["teacher/prediction"].float(), output.prediction.float()
        if self.task.kind == "regression":
            return 0.5 * (teacher - student).square().mean()
        log_t, log_s = teacher.log_softmax(dim=-1).flatten(0, -2), student.log_softmax(dim=-1).flatten(0, -2)
        return F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")

    def _adam(self, *modules: nn.Module) -> Adam:
        parameters = [p for module in modules for p in module.parameters()]
        return Adam(parameters, lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True)

    def _release(self, phase: str) -> None:
        """Only what this phase trains takes gradients."""
        for module in (self.teacher, self.student, self.statistics, self.discriminators):
            if module is not None:
                module.requires_grad_((module is self.teacher) == (phase == "teacher"))

    def _check_settings(self) -> None:
        config = self.config
        alone = [name for name in ("no_hmi", "no_hal", "no_kl") if getattr(config, name)]
        contradictions = {
            f"{self.id} translates between modalities; the data has only {self.modalities[0]}": len(self.modalities)
            < 2,
            f"no_teacher leaves nothing to compare the student with; leave {', '.join(alone)} out": (
                config.no_teacher and bool(alone)
            ),
            "no_frf has no targets; leave frf_detach out": config.no_frf and config.frf_detach,
            "no_frf has no weight to raise; leave frf_warmup out": config.no_frf and config.frf_warmup > 0,
        }
        for message, found in contradictions.items():
            if found:
                raise ConfigError(message)


def _scales(output: Output, whose: str = "") -> list[Tensor]:
    """``E_1`` to ``E_3`` of the student, or with ``"teacher/"`` of the teacher."""
    return [output.auxiliary[f"{whose}scale/{i}"] for i in (1, 2, 3)]
