"""Writes a small training checkpoint of CoreNet with PyTorch, which must be installed, for
openelm-core/tests/pretrain/corenet_checkpoint.rs.

    python3 parity/corenet_training.py

The modules have the names and the order of CoreNet's `GeneralGPTModel`, the optimizer the groups of
its `parameter_list`, the file the keys of its `get_training_state`. The weights of a parameter and
its moments are numbers that follow from its place among the modules.
"""

from pathlib import Path

import torch
from torch import nn

FILE = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/torch/pytorch_training.pt"
WIDTH, HEAD, HEADS, FFN, ROWS = 16, 8, 1, 16, 20


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv_proj = linear(WIDTH, 3 * HEADS * HEAD)
        self.q_norm, self.k_norm = Norm(HEAD), Norm(HEAD)
        self.out_proj = linear(HEADS * HEAD, WIDTH)


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj_1, self.proj_2 = linear(WIDTH, 2 * FFN), linear(FFN, WIDTH)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.ffn = Attention(), FeedForward()
        self.ffn_norm, self.attn_norm = Norm(WIDTH), Norm(WIDTH)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embeddings = nn.Embedding(ROWS, WIDTH, padding_idx=ROWS - 1)
        self.layers = nn.ModuleList([Layer()])
        self.norm = Norm(WIDTH)
        self.classifier = None


model = Model()
average = Model()
parameters = list(model.parameters())
groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
          {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
for _ in range(3):
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
with torch.no_grad():
    for place, (parameter, mean) in enumerate(zip(parameters, average.parameters())):
        parameter.fill_(0.125 * (place + 1))
        mean.fill_(0.25 * (place + 1))
        optimizer.state[parameter]["exp_avg"].fill_(place + 1)
        optimizer.state[parameter]["exp_avg_sq"].fill_(100 * (place + 1))
torch.save({
    "iterations": 3,
    "epoch": 0,
    "model_state_dict": model.state_dict(),
    "optim_state_dict": optimizer.state_dict(),
    "best_metric": float("inf"),
    "is_interval_ckpt": True,
    "gradient_scaler_state_dict": torch.cuda.amp.GradScaler(enabled=False).state_dict(),
    "ema_state_dict": average.state_dict(),
}, FILE)
