"""Random causal LMs of two layers, one a family, and tokenizers that need no download."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE, WordLevel
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

__all__ = [
    "CHATML",
    "CHATML_MARKED",
    "OTHER_MODELS",
    "TINY_MODELS",
    "VOCABULARY_SIZE",
    "byte_tokenizer",
    "chat_tokens",
    "decode",
    "other_model",
    "save_tiny",
    "tiny_gemma",
    "tiny_gemma2",
    "tiny_gpt2",
    "tiny_gpt_neox",
    "tiny_gpt_oss",
    "tiny_llama",
    "tiny_qwen2",
    "tiny_qwen3",
    "tiny_smollm3",
    "tiny_tokenizer",
]

VOCABULARY_SIZE = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
UNKNOWN, START, END = "<unk>", "<|im_start|>", "<|im_end|>"

CHATML = """\
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CHATML_MARKED = """\
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}
{{- message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def tiny_llama(
    seed: int = 0, vocabulary_size: int = VOCABULARY_SIZE, layers: int = 2
) -> tuple[PreTrainedModel, LlamaConfig]:
    sizes = SIZES | {"vocab_size": vocabulary_size, "num_hidden_layers": layers}
    config = LlamaConfig(**sizes, intermediate_size=64, num_key_value_heads=2)
    return _random_model(config, seed), config


def tiny_qwen2(seed: int = 0, layers: int = 2) -> tuple[PreTrainedModel, Qwen2Config]:
    """Biases on queries, keys and values; embeddings tied to the head."""
    sizes = SIZES | {"num_hidden_layers": layers}
    config = Qwen2Config(
        **sizes, intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=True
    )
    return _random_model(config, seed), config


def tiny_gemma(seed: int = 0) -> tuple[PreTrainedModel, GemmaConfig]:
    """Heads wider than the hidden size over their number; one key head."""
    config = GemmaConfig(**SIZES, intermediate_size=48, num_key_value_heads=1, head_dim=16)
    return _random_model(config, seed), config


def tiny_gemma2(seed: int = 0) -> tuple[PreTrainedModel, Gemma2Config]:
    """Capped attention logits; every other layer sees eight tokens back."""
    config = Gemma2Config(
        **SIZES,
        intermediate_size=48,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=8,
        query_pre_attn_scalar=16,
    )
    return _random_model(config, seed), config


def tiny_gpt_neox(seed: int = 0) -> tuple[PreTrainedModel, GPTNeoXConfig]:
    """One linear for queries, keys and values; biases everywhere; layer norms."""
    config = GPTNeoXConfig(**SIZES, intermediate_size=48)
    return _random_model(config, seed), config


def tiny_gpt2(seed: int = 0) -> tuple[PreTrainedModel, GPT2Config]:
    """Learned positions; weights kept as (inputs, outputs)."""
    config = GPT2Config(
        vocab_size=VOCABULARY_SIZE, n_embd=32, n_layer=2, n_head=4, initializer_range=0.1
    )
    return _random_model(config, seed), config


def tiny_qwen3(seed: int = 0, layers: int = 2) -> tuple[PreTrainedModel, Qwen3Config]:
    """Norms of each head's queries and keys; heads wider than the hidden size over their number."""
    sizes = SIZES | {"num_hidden_layers": layers, "head_dim": 16}
    config = Qwen3Config(**sizes, intermediate_size=48, num_key_value_heads=2)
    return _random_model(config, seed), config


def tiny_gpt_oss(seed: int = 0) -> tuple[PreTrainedModel, GptOssConfig]:
    """A sink beside each head's scores; experts; every other layer sees eight tokens back."""
    config = GptOssConfig(
        **_GROUPED,
        head_dim=16,
        sliding_window=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return _random_model(config, seed), config


def tiny_smollm3(seed: int = 0, layers: int = 2) -> tuple[PreTrainedModel, SmolLM3Config]:
    """Every other layer knows no positions."""
    sizes = _GROUPED | {"num_hidden_layers": layers}
    config = SmolLM3Config(**sizes, no_rope_layer_interval=2)
    return _random_model(config, seed), config


def other_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Of `OTHER_MODELS`."""
    kind, sizes = OTHER_MODELS[family]
    return _random_model(kind(**_GROUPED | sizes), seed)


TINY_MODELS: dict[str, Callable[[], tuple[PreTrainedModel, PretrainedConfig]]] = {
    "llama": tiny_llama,
    "qwen2": tiny_qwen2,
    "gemma": tiny_gemma,
    "gemma2": tiny_gemma2,
    "gpt_neox": tiny_gpt_neox,
    "gpt_oss": tiny_gpt_oss,
    "qwen3": tiny_qwen3,
    "smollm3": tiny_smollm3,
}
_GROUPED: dict[str, Any] = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

# Families which transformers' modules compute in other ways again.
OTHER_MODELS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "cohere2": (Cohere2Config, {}),
    "deepseek_v3": (
        DeepseekV3Config,
        {
            **_EXPERTS,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "gemma3": (Gemma3TextConfig, {"head_dim": 16, "sliding_window": 8}),
    "glm4": (Glm4Config, {"head_dim": 8}),
    "granite": (GraniteConfig, {"residual_multiplier": 0.5, "logits_scaling": 2.0}),
    "mixtral": (MixtralConfig, {"num_local_experts": 4}),
    "olmo2": (Olmo2Config, {}),
    "phi3": (Phi3Config, {}),
    "qwen3_moe": (Qwen3MoeConfig, {**_EXPERTS, "head_dim": 16, "num_experts": 4}),
}


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token per printable character, to fit the tiny models' vocabulary."""
    characters = "\n " + string.ascii_letters + string.digits + string.punctuation
    vocabulary = [UNKNOWN, START, END, *characters][:VOCABULARY_SIZE]
    tokenizer = Tokenizer(WordLevel({t: i for i, t in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _wrapped(tokenizer, chat_template)


def byte_tokenizer(
    chat_template: str | None = CHATML, text: str = "the capital of France is Paris. "
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the merges that `text` gives, spaces at the front of words."""
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[UNKNOWN, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text * 3], trainer)
    return _wrapped(tokenizer, chat_template)


def decode(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int]) -> str:
    return cast(str, tokenizer.decode(list(tokens)))


def chat_tokens(tokenizer: PreTrainedTokenizerFast, turns: list[dict[str, str]]) -> list[int]:
    return cast(list[int], tokenizer.apply_chat_template(turns, return_dict=False))


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A model folder with tiny Llama and its tokenizer."""
    tiny_llama(seed)[0].save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _wrapped(tokenizer: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        chat_template=chat_template,
    )


def _random_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases start at zero and norms at one: both hide mistakes
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return cast(PreTrainedModel, model.eval())
