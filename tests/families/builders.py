"""Tiny random models of many families, each a folder with a tokenizer: nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

V = 340  # a few more than the tokenizer has: some tokenizers add one when they are loaded
B: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ALL_HEADS = {**B, "num_key_value_heads": 4}
GPT = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
ENCODER = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
MLA = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}  # fmt: skip
MAMBA = {"vocab_size": V, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
HYBRID = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

# name → (configuration's class, its settings)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", B),
    "mistral": ("MistralConfig", B),
    "qwen2": ("Qwen2Config", B),
    "qwen3": ("Qwen3Config", {**B, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**B, "head_dim": 8}),
    "gemma3 text": ("Gemma3TextConfig", {**B, "head_dim": 8}),
    "phi3": ("Phi3Config", B),
    "olmo2": ("Olmo2Config", B),
    "granite": ("GraniteConfig", B),
    "cohere": ("CohereConfig", B),
    "starcoder2": ("Starcoder2Config", B),
    "gpt2": ("GPT2Config", {**GPT, "n_positions": 48}),
    "gptj": ("GPTJConfig", {**GPT, "rotary_dim": 8}),
    "gpt_neox": ("GPTNeoXConfig", ENCODER),
    "gpt_bigcode": ("GPTBigCodeConfig", {**GPT, "multi_query": True}),
    "opt": ("OPTConfig", {
        "vocab_size": V, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256, "word_embed_proj_dim": 16,
        "pad_token_id": 0,
    }),
    "bloom": ("BloomConfig", {"vocab_size": V, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("FalconConfig", {
        "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    }),
    "mpt": ("MptConfig", {
        "vocab_size": V, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
    }),
    "ctrl": ("CTRLConfig", {**GPT, "dff": 64}),
    "roformer decoder": ("RoFormerConfig", {**ENCODER, "is_decoder": True}),
    "mixtral": ("MixtralConfig", {**B, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3MoeConfig", {**B, **EXPERTS, "head_dim": 8, "num_experts": 4}),
    "qwen3_next": ("Qwen3NextConfig", {
        **B, **EXPERTS, "head_dim": 8, "num_experts": 4, "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    }),
    "deepseek_v2": ("DeepseekV2Config", {
        **ALL_HEADS, **EXPERTS, **MLA, "n_routed_experts": 4, "first_k_dense_replace": 1,
        "n_shared_experts": 1,
    }),
    "deepseek_v3": ("DeepseekV3Config", {
        **ALL_HEADS, **EXPERTS, **MLA, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1,
    }),
    "glm4_moe": ("Glm4MoeConfig", {
        **B, **EXPERTS, "head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1,
    }),
    "ernie4_5_moe": ("Ernie4_5_MoeConfig", {
        **B, "moe_intermediate_size": 16, "moe_num_experts": 4, "moe_num_shared_experts": 1,
        "moe_k": 2, "moe_layer_start_index": 1,
    }),
    "llama4": ("Llama4TextConfig", {
        **B, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 4,
        "num_experts_per_tok": 1,
    }),
    "phimoe": ("PhimoeConfig", {**B, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOssConfig", {
        **B, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
    }),
    "mamba": ("MambaConfig", MAMBA),
    "mamba2": ("Mamba2Config", {
        **MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8,
    }),
    "falcon_h1": ("FalconH1Config", {
        **B, **HYBRID, "head_dim": 8, "mamba_d_ssm": 32, "mamba_d_head": 8,
    }),
    "zamba2": ("Zamba2Config", {
        **ALL_HEADS, "num_hidden_layers": 4, "mamba_d_state": 8, "mamba_headdim": 16,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "n_mamba_heads": 4,
        "mamba_ngroups": 1, "chunk_size": 8, "num_mem_blocks": 1, "adapter_rank": 4,
    }),
    "rwkv": ("RwkvConfig", {
        "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 256,
    }),
    "lfm2": ("Lfm2Config", {**B, "layer_types": ["conv", "full_attention"]}),
    "gemma3 with eyes": ("Gemma3Config", {
        "text_config": {**B, "head_dim": 8, "model_type": "gemma3_text"},
        "vision_config": {**VISION, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4, "image_token_index": 10, "boi_token_index": 11,
        "eoi_token_index": 12,
    }),
    "gemma3n": ("Gemma3nTextConfig", {
        **B, "num_hidden_layers": 4, "head_dim": 8, "vocab_size_per_layer_input": V,
        "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 1, "laurel_rank": 4,
        "activation_sparsity_pattern": None,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }),
    "bart decoder": ("BartConfig", {
        "vocab_size": V, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4,
        "encoder_layers": 2, "encoder_attention_heads": 4, "decoder_ffn_dim": 64,
        "encoder_ffn_dim": 64, "max_position_embeddings": 256,
    }),
    "bert": ("BertConfig", ENCODER),
    "roberta": ("RobertaConfig", {**ENCODER, "pad_token_id": 1}),
    "electra": ("ElectraConfig", {**ENCODER, "embedding_size": 32}),
    "xlnet": ("XLNetConfig", {
        "vocab_size": V, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64,
    }),
    "xlm": ("XLMConfig", {
        "vocab_size": V, "emb_dim": 32, "n_layers": 2, "n_heads": 4,
        "max_position_embeddings": 256,
    }),
    "reformer": ("ReformerConfig", {
        "vocab_size": V, "hidden_size": 32, "num_attention_heads": 2, "attention_head_size": 16,
        "is_decoder": True, "feed_forward_size": 64, "attn_layers": ["local", "local"],
        "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16],
        "max_position_embeddings": 256,
    }),
}  # fmt: skip


def build(name: str, folder: Path, tokenizer: Callable[..., Any]) -> Path:
    """Write the family's model into `folder`, with weights drawn from one seed."""
    import torch
    import transformers

    kind, settings = FAMILIES[name]
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
