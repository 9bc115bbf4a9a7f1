#!/usr/bin/env python3
"""Makes tiny random models of each family with transformers, the reference, and what they compute.

    python make.py      (needs: pip install torch transformers==5.15.1 gguf==0.19.0 safetensors accelerate)

Writes, for each family F in FAMILIES:
    F/                  a Hugging Face directory as save_pretrained writes it, weights in float16, with a tokenizer
    F.gguf              the same model as llama.cpp's converter lays it out
    F.reference.safetensors
                        tokens (24); logits (24,V) of them, in float32; greedy (16), the ids that follow the first 8
                        tokens, each the likeliest one
A second run writes the same numbers. What the GGUF file holds is read back with transformers and has the same logits.
"""
import json
import pathlib
import shutil

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen2Config, Qwen3Config

HERE = pathlib.Path(__file__).parent
VOCAB, PAD_TO, CONTEXT, LAYERS = 264, 272, 64, 3
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|"
         r"\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

COMMON = dict(vocab_size=PAD_TO, hidden_size=24, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=256, eos_token_id=257)
FAMILIES = {
    "mistral": MistralConfig(**COMMON, sliding_window=CONTEXT, rms_norm_eps=1e-5,
                             rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    "qwen2": Qwen2Config(**COMMON, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
    "qwen3": Qwen3Config(**COMMON, head_dim=8, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
    "gpt2": GPT2Config(vocab_size=PAD_TO, n_positions=CONTEXT, n_embd=24, n_layer=LAYERS, n_head=3, bos_token_id=256,
                       eos_token_id=256),
}
PRE = {"mistral": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2", "gpt2": "gpt-2"}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tokenizer(family):
    made = Tokenizer(models.BPE(ignore_merges=PRE[family] == "llama-bpe"))
    if family == "gpt2":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pattern = LLAMA3 if PRE[family] == "llama-bpe" else QWEN2
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if PRE[family] == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIALS), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    made.train_from_iterator(["the theatre then, the anthem"] * 2, trainer)
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return made


def random_model(config, seed):
    """Weights that matter: products N(0, 1/fan-in), norms about 1, biases about 0."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=stream)
            if parameter.dim() == 1:
                parameter.copy_((0.0 if name.endswith("bias") else 1.0) + 0.3 * noise)
            else:
                fan_in = parameter.shape[0] if name.rsplit(".", 2)[1] in ("c_attn", "c_proj", "c_fc") else parameter.shape[1]
                parameter.copy_(noise / fan_in**0.5 * (1.0 if "embed" in name or "wte" in name else 1.5))
    return model.half()


def reference(model, tokens):
    with torch.no_grad():
        logits = model(tokens[None]).logits[0]
        ids = tokens[None, :8]
        for _ in range(16):
            last = model(ids).logits[0, -1]
            two = last.topk(2).values
            assert two[0] - two[1] > 0.01, "a near tie: choose another seed"
            ids = torch.cat([ids, last.argmax()[None, None]], 1)
    return {"tokens": tokens.int(), "logits": logits.contiguous(), "greedy": ids[0, 8:].int().contiguous()}


def neighbours(weight, heads):
    """The converter's order of rows of q and k for llama: the two halves of a head become neighbours."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(family, config, state, path):
    arch = "llama" if family == "mistral" else family
    out = gguf.GGUFWriter(path, arch)
    out.add_name(family + "-tiny")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(4 * config.hidden_size if arch == "gpt2" else config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_file_type(1)
    if arch == "gpt2":
        out.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        out.add_head_count_kv(config.num_key_value_heads)
        out.add_layer_norm_rms_eps(config.rms_norm_eps)
        out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if arch == "llama":
        out.add_vocab_size(PAD_TO)
        out.add_rope_dimension_count(config.head_dim)
        out.add_sliding_window(CONTEXT)
    if arch == "qwen3":
        out.add_key_length(config.head_dim)
        out.add_value_length(config.head_dim)
    write_gguf_tokenizer(family, config, out)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH_NAMES_BY_NAME[arch] if hasattr(gguf, "MODEL_ARCH_NAMES_BY_NAME")
                                     else next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch), LAYERS)
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value = tensor.numpy()
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            value = value.T.copy()
        if arch == "llama" and name.endswith((".q_proj.weight", ".k_proj.weight")):
            value = neighbours(value, config.num_attention_heads if ".q_" in name else config.num_key_value_heads)
        if value.ndim == 1:
            value = value.astype("float32")
        out.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_gguf_tokenizer(family, config, out):
    model = json.loads(tokenizer(family).to_str())
    tokens = sorted(model["model"]["vocab"], key=model["model"]["vocab"].get) + SPECIALS
    types = [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIALS)) + [gguf.TokenType.CONTROL] * len(SPECIALS)
    for i in range(len(tokens), PAD_TO):
        tokens.append(f"[PAD{i}]")
        types.append(gguf.TokenType.UNUSED)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(PRE[family])
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["model"]["merges"]])
    out.add_bos_token_id(config.bos_token_id)
    out.add_eos_token_id(config.eos_token_id)
    out.add_add_bos_token(False)


def main():
    torch.set_num_threads(1)
    for seed, (family, config) in enumerate(FAMILIES.items()):
        folder = HERE / family
        shutil.rmtree(folder, ignore_errors=True)
        random_model(config, seed + 1).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokenizer(family).save(str(folder / "tokenizer.json"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokens = torch.randint(0, VOCAB, (24,), generator=torch.Generator().manual_seed(99))
        numbers = reference(model, tokens)
        save_file(numbers, HERE / f"{family}.reference.safetensors")
        write_gguf(family, model.config, {n: t.half() for n, t in model.state_dict().items()}, HERE / f"{family}.gguf")
        # This reader of gguf files takes the default for qwen3's head_dim and gpt2's positions, so it is told.
        told = {"config": model.config} if family in ("qwen3", "gpt2") else {}
        back = AutoModelForCausalLM.from_pretrained(HERE, gguf_file=f"{family}.gguf", dtype=torch.float32, **told).eval()
        with torch.no_grad():
            difference = (back(tokens[None]).logits[0] - numbers["logits"]).abs().max().item()
        print(family, "largest logit", numbers["logits"].abs().max().item(), "gguf differs by", difference)
        assert difference < 1e-5


if __name__ == "__main__":
    main()
