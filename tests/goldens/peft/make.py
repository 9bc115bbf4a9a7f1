"""A tiny Llama, LoRA adapters for it made with PEFT, and the logits that PEFT gives.

usage: make.py OUT
needs torch, transformers 5, peft 0.21, safetensors. Everything is random with fixed seeds.

Writes under OUT: model/ (config.json, model.safetensors); plain/ (r 4 on q and v of layers 1 and 2), varied/ (every
product of layers 1 and 2, ranks and alphas by pattern, rank-stabilised) and outside/ (q of every layer, and lm_head),
each an adapter as PEFT saves it; logits.safetensors (tokens (T), base (T,V), plain (T,V), varied (T,V)).
"""
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

out = Path(sys.argv[1])
torch.set_num_threads(1)
SHAPE = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             intermediate_size=48, vocab_size=260, max_position_embeddings=128, rms_norm_eps=1e-5,
             tie_word_embeddings=True, bos_token_id=None, eos_token_id=257)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "plain": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], layers_to_transform=[1, 2]),
    "varied": LoraConfig(r=2, lora_alpha=6, use_rslora=True, target_modules=ALL, layers_to_transform=[1, 2],
                         rank_pattern={"layers.1.self_attn.q_proj": 5, "down_proj": 3},
                         alpha_pattern={r"layers\.\d+\.mlp\.up_proj": 11, "v_proj": 3}),
    "outside": LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "lm_head"]),
}


def model():
    torch.manual_seed(11)
    made = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    for parameter in made.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return made


def logits_of(made, tokens):
    with torch.no_grad():
        return made(tokens[None]).logits[0].contiguous()


tokens = torch.randint(0, 256, (16,), generator=torch.Generator().manual_seed(3))
whole = model()
whole.save_pretrained(out / "model")
(out / "model/generation_config.json").unlink(missing_ok=True)
results = {"tokens": tokens.int(), "base": logits_of(whole, tokens)}
for name, config in ADAPTERS.items():
    adapted = get_peft_model(model(), config)
    torch.manual_seed(5)
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    results[name] = logits_of(adapted.eval(), tokens)
    adapted.peft_config["default"].target_modules = sorted(config.target_modules)  # a set has an order of its own
    adapted.save_pretrained(out / name)
    (out / name / "README.md").unlink(missing_ok=True)
save_file({name: value for name, value in results.items() if name != "outside"}, out / "logits.safetensors")
for name in ADAPTERS:
    print(name, "moves the logits by at most", (results[name] - results["base"]).abs().max().item())
