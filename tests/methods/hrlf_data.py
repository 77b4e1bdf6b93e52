"""What the tests of hrlf share."""

import math

import numpy as np
from method_data import build

SMALL = {
    "width": 8, "heads": 2, "feedforward": 16, "qu_dim": 4, "critic_hidden": 8, "dropout": 0.0,
}  # fmt: skip
FRF = ["translation", "reconstruction"]
STUDENT_TERMS = ["task", *FRF, "hmi", "hal", "kl"]


def small(train, phase=None, **config):
    return build("hrlf", train, phase=phase, **{**SMALL, **config})


def terms_of(train, phase=None, **config):
    """A method in training mode and the raw terms of one step on the samples as they are."""
    method = small(train, phase, **config)
    return method, method.losses(train.data, method(train.data)).raw


def arrays(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def hidden_relu(weights, name, x):
    """Linear, ReLU, linear."""
    return linear(weights, f"{name}.2", np.maximum(linear(weights, f"{name}.0", x), 0))


def slow_state(encoder, frames, heads, readout="last"):
    """Z of one sample ``(T, d_m)`` without padding, frame by frame and head by head in double precision."""
    w, steps = arrays(encoder), len(frames)
    kernel, bias = w["convolve.weight"], w["convolve.bias"]
    width = len(bias)
    states = np.zeros((steps, width))
    for t in range(steps):
        states[t] = bias
        for offset in (-1, 0, 1):
            if 0 <= t + offset < steps:
                states[t] += kernel[:, :, offset + 1] @ frames[t + offset]
        for i in range(0, width, 2):
            angle = t / 10000 ** (i / width)
            states[t, i] += math.sin(angle)
            states[t, i + 1] += math.cos(angle)
    for layer in range(len(encoder.blocks)):
        states = _slow_block(w, f"blocks.{layer}", states, heads)
    return states[-1] if readout == "last" else sum(states) / steps


def _slow_block(w, name, states, heads):
    steps, width = states.shape
    size = width // heads
    weight, bias = w[f"{name}.attention.in_proj_weight"], w[f"{name}.attention.in_proj_bias"]
    q, k, v = (states @ weight[i : i + width].T + bias[i : i + width] for i in range(0, 3 * width, width))
    mixed = np.zeros_like(states)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for t in range(steps):
            score = np.exp(np.array([q[t, part] @ k[s, part] / math.sqrt(size) for s in range(steps)]))
            mixed[t, part] = sum(score[s] * v[s, part] for s in range(steps)) / score.sum()
    states = _slow_norm(w, f"{name}.norms.0", states + linear(w, f"{name}.attention.out_proj", mixed))
    inner = np.maximum(linear(w, f"{name}.feedforward.0", states), 0)
    # With dropout the network has one more module between the two layers.
    second = max(key.split(".")[3] for key in w if key.startswith(f"{name}.feedforward"))
    return _slow_norm(w, f"{name}.norms.1", states + linear(w, f"{name}.feedforward.{second}", inner))


def _slow_norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
