"""Adam as torch has it, ready at once."""

from __future__ import annotations

import inspect

import torch


class Adam(torch.optim.Adam):
    """:class:`torch.optim.Adam`, number for number, without its wrappers for ``torch.compile``.

    They import ``torch._dynamo`` at the first step: 1.5 s of CPU, a fifth of a short training [T]. Nothing is compiled
    here.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
