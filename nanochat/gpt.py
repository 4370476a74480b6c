"""The nanochat GPT: rotary positions, QK norm, relu² MLP, untied embeddings, soft-capped logits.

As it is by default the same function as transformers' `NanoChatForCausalLM`. Two options go beyond it
(`arch: modern`): learned scalars that mix the embedding into every block's input, and tables of values
by token in every other block. Master weights are float32; every matrix product casts them to the compute
type, so there is no autocast and no second copy.
Not covered: dropout, biases, sliding windows, tensor parallelism.

# Shapes: B batch, T tokens, S tokens with cache, V vocabulary, D width, H query heads,
#         K key/value heads (H % K == 0), E head width, R = E/2 rotary pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nanochat import fp8
from nanochat.attention import causal_attention
from nanochat.loss import head_loss, head_nats, softcap

NORM_EPS = 1.1920928955078125e-07  # of float32, in every compute type: training and serving agree
VALUES_STD = 0.1
GATE_CHANNELS = 32  # of a block's input, from which the gate of its value embedding is made


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a model; stored in every checkpoint."""

    sequence_len: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    rope_theta: float = 10_000.0
    residual_scalars: bool = False
    value_embeddings: bool = False

    @classmethod
    def from_depth(cls, depth: int, vocab_size: int, sequence_len: int, **options: Any) -> GPTConfig:
        """Width 64·depth, heads 128 wide."""
        width = 64 * depth
        heads = max(1, -(-width // 128))
        return cls(sequence_len, vocab_size, depth, heads, heads, width, **options)

    def has_values(self, layer: int) -> bool:
        """Whether block `layer` has a value embedding: every other one, the last among them."""
        return self.value_embeddings and (self.n_layer - 1 - layer) % 2 == 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class LayerCache(Protocol):
    """Keys and values of earlier tokens of one layer (see nanochat/engine/cache.py)."""

    def attend(self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        """Store the new keys and values and attend to all there are: (B, H, T, E)."""


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last dimension, without weights."""
    return F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


def rotate(x_BHTE: Tensor, cos_BTR: Tensor, sin_BTR: Tensor) -> Tensor:
    """Rotary position embedding by minus the angle, pairs (x[i], x[i + E/2]) (RoFormer, half split)."""
    a, b = x_BHTE.chunk(2, dim=-1)
    cos, sin = cos_BTR.unsqueeze(-3), sin_BTR.unsqueeze(-3)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1).to(x_BHTE.dtype)


class Linear(nn.Linear):
    """A matrix product in the type of its input, or in 8 bits while training (see `GPT.train_in_fp8`)."""

    fp8 = False

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.fp8 and self.training and fp8.fits(x, self.weight):
            return fp8.linear(x, self.weight)
        return F.linear(x, self.weight.to(x.dtype))


class Embedding(nn.Embedding):
    """Rows of a table. Not drawn on the meta device; see GPT."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Attention(nn.Module):
    """Causal grouped-query attention with QK norm, perhaps with a value embedding (Zhou et al. 2024)."""

    def __init__(self, cfg: GPTConfig, values: bool = False) -> None:
        super().__init__()
        self.H, self.K, self.E = cfg.n_head, cfg.n_kv_head, cfg.n_embd // cfg.n_head
        self.c_q = Linear(cfg.n_embd, self.H * self.E)
        self.c_k = Linear(cfg.n_embd, self.K * self.E)
        self.c_v = Linear(cfg.n_embd, self.K * self.E)
        self.c_proj = Linear(self.H * self.E, cfg.n_embd)
        if values:
            self.ve = Embedding(cfg.vocab_size, self.K * self.E)
            self.ve_gate = Linear(GATE_CHANNELS, self.K)

    def forward(
        self,
        x_BTD: Tensor,
        cos_BTR: Tensor,
        sin_BTR: Tensor,
        cache: LayerCache | None,
        values_BTC: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTE = self.c_q(x_BTD).view(B, T, self.H, self.E).transpose(1, 2)
        k_BKTE = self.c_k(x_BTD).view(B, T, self.K, self.E).transpose(1, 2)
        v_BTKE = self.c_v(x_BTD).view(B, T, self.K, self.E)
        if values_BTC is not None:
            gate_BTK = 2 * torch.sigmoid(self.ve_gate(x_BTD[..., :GATE_CHANNELS]))
            v_BTKE = v_BTKE + gate_BTK[..., None] * values_BTC.view(B, T, self.K, self.E)
        v_BKTE = v_BTKE.transpose(1, 2)
        q_BHTE = norm(rotate(q_BHTE, cos_BTR, sin_BTR))
        k_BKTE = norm(rotate(k_BKTE, cos_BTR, sin_BTR))
        if cache is not None:
            y_BHTE = cache.attend(q_BHTE, k_BKTE, v_BKTE)
        else:
            y_BHTE = causal_attention(q_BHTE, k_BKTE, v_BKTE)
        return self.c_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """D → 4D → D with relu²."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(cfg.n_embd, 4 * cfg.n_embd)
        self.c_proj = Linear(4 * cfg.n_embd, cfg.n_embd)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x_BTD)).square())


class Block(nn.Module):
    def __init__(self, cfg: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(cfg, cfg.has_values(layer))
        self.mlp = MLP(cfg)
        if cfg.residual_scalars:
            self.mix = nn.Parameter(torch.empty(2))  # of the input, of the embedding

    def forward(
        self,
        x_BTD: Tensor,
        cos_BTR: Tensor,
        sin_BTR: Tensor,
        cache: LayerCache | None,
        first_BTD: Tensor | None = None,
        values_BTC: Tensor | None = None,
    ) -> Tensor:
        if first_BTD is not None:
            x_BTD = self.mix[0] * x_BTD + self.mix[1] * first_BTD
        x_BTD = x_BTD + self.attn(norm(x_BTD), cos_BTR, sin_BTR, cache, values_BTC)
        return x_BTD + self.mlp(norm(x_BTD))


class GPT(nn.Module):
    """Token ids in, logits or loss out. `compute_dtype` is the type of the matrix products.

    On the meta device nothing is computed while it is made, the rotary tables neither (`reset_rotary`): meta
    arithmetic imports torch._dynamo, 1 s of CPU and 75 MB in every process that loads a checkpoint.
    """

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(self, cfg: GPTConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cfg = cfg
        self.compute_dtype = compute_dtype
        self.checkpoint_activations = False
        self.transformer = nn.ModuleDict(
            {
                "wte": Embedding(cfg.vocab_size, cfg.n_embd),
                "h": nn.ModuleList(Block(cfg, layer) for layer in range(cfg.n_layer)),
            }
        )
        self.lm_head = Linear(cfg.n_embd, cfg.vocab_size)
        self.register_buffer("cos_TR", torch.empty(0), persistent=False)
        self.register_buffer("sin_TR", torch.empty(0), persistent=False)
        if not self.lm_head.weight.is_meta:
            self.reset_rotary(cfg.sequence_len)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return cast(nn.ModuleList, self.transformer["h"])

    def reset_rotary(self, length: int) -> None:
        """(Re)compute the float32 rotary tables for `length` positions, on the weights' device."""
        device = self.lm_head.weight.device
        pairs = self.cfg.n_embd // self.cfg.n_head // 2
        inv_freq_R = self.cfg.rope_theta ** (-torch.arange(pairs, dtype=torch.float32, device=device) / pairs)
        angle_TR = torch.arange(length, dtype=torch.float32, device=device)[:, None] * inv_freq_R
        self.cos_TR, self.sin_TR = angle_TR.cos(), angle_TR.sin()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """N(0, 1) embedding, zero head, output projections and gates, the rest scaled by fan-in.

        The first loss is therefore ln V exactly.
        """
        for name, weight in self.named_parameters():
            if name == "lm_head.weight" or name.endswith(("c_proj.weight", "ve_gate.weight")):
                nn.init.zeros_(weight)
            elif name.endswith(".mix"):
                weight.copy_(torch.tensor((1.0, 0.0)))
            elif name.endswith(".ve.weight"):
                nn.init.normal_(weight, std=VALUES_STD, generator=generator)
            elif name == "transformer.wte.weight":
                nn.init.normal_(weight, generator=generator)
            else:
                fan_out, fan_in = weight.shape
                std = min(1.0, (fan_out / fan_in) ** 0.5) / fan_in**0.5
                nn.init.normal_(weight, std=std, generator=generator)
        self.reset_rotary(self.cos_TR.size(0))

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, caches: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """Last hidden state, normed, in the compute type. Positions default to 0…T-1."""
        T = ids_BT.size(1)
        if positions_BT is None:
            cos, sin = self.cos_TR[None, :T], self.sin_TR[None, :T]
        else:
            cos, sin = self.cos_TR[positions_BT], self.sin_TR[positions_BT]
        x = norm(self.transformer["wte"](ids_BT).to(self.compute_dtype))
        first = x if self.cfg.residual_scalars else None
        for layer, block in enumerate(cast(Iterable[Block], self.blocks)):
            values = block.attn.ve(ids_BT).to(x.dtype) if self.cfg.has_values(layer) else None
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, cos, sin, None, first, values, use_reentrant=False)
            else:
                x = block(x, cos, sin, caches[layer] if caches is not None else None, first, values)
        return norm(x)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Soft-capped logits in float32: 15·tanh(z/15) (Gemma 2)."""
        return softcap(self.lm_head(x_BTD))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """Logits (B, T, V), or the cross-entropy in nats over the targets that are not -1.

        `reduction`: mean or sum, or none: (B·T,) without gradient. The loss never holds all logits.
        """
        x_BTD = self.hidden(ids_BT)
        if targets_BT is None:
            return self.logits(x_BTD)
        x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
        if reduction == "none":
            return head_nats(x_ND, self.lm_head.weight, targets_N)
        weights_N = torch.ones_like(targets_N, dtype=torch.float32)
        if reduction == "mean":
            weights_N /= (targets_N != -1).sum()
        return head_loss(x_ND, self.lm_head.weight, targets_N, weights_N)

    def train_in_fp8(self) -> None:
        """From now on the blocks' products are made in 8 bits in training mode."""
        for module in self.blocks.modules():
            if isinstance(module, Linear):
                module.fp8 = True

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def matrices(self) -> dict[str, nn.Parameter]:
        """The weights of the blocks' matrix products, by name: what Muon updates."""
        return {
            name: weight
            for name, weight in self.named_parameters()
            if name.startswith("transformer.h.") and name.split(".")[-2].startswith("c_")
        }

    def flops_per_token(self) -> int:
        """Forward and backward: 6·(matrices and head) + 12·L·D·T (PaLM, appendix B); lookups are free."""
        c = self.cfg
        multiplied = sum(weight.numel() for weight in self.matrices().values()) + c.vocab_size * c.n_embd
        return 6 * multiplied + 12 * c.n_layer * c.n_embd * c.sequence_len
