// The JSON Schema of a training plan, with every default.
#include "host/training/plan.hpp"

namespace tenon {
namespace {

constexpr const char* kPlanSchema = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "training plan",
  "type": "object",
  "additionalProperties": false,
  "required": ["architecture", "model", "data"],
  "properties": {
    "architecture": {"type": "string", "minLength": 1, "maxLength": 128},
    "plugin": {"type": "string", "maxLength": 256, "default": ""},
    "model": {"type": "string", "minLength": 1, "maxLength": 256},
    "config": {"type": "object", "default": {}},
    "version": {"type": "string", "minLength": 1, "maxLength": 128, "default": "1.0.0"},
    "summary": {"type": "string", "maxLength": 1000, "default": ""},
    "license": {"type": "string", "maxLength": 200, "default": ""},
    "from": {
      "type": "object", "additionalProperties": false, "required": ["model", "layers"],
      "description": "where the blocks of an imported expert come from",
      "properties": {
        "model": {"type": "string", "minLength": 1, "maxLength": 256, "description": "NAME or NAME@RANGE, with the same tokenizer"},
        "layers": {"type": "string", "maxLength": 32, "description": "A:Z of the whole model, Z excluded"}
      }
    },
    "data": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "paths": {"type": "array", "items": {"type": "string", "minLength": 1}, "default": []},
        "format": {"enum": ["text", "chat"], "default": "text",
                   "description": "chat: JSONL of dialogues, whose answers alone count for the loss"},
        "field": {"type": "string", "default": "", "description": "of JSONL lines; by default text, for chat messages"},
        "template": {"type": "string", "default": "", "description": "of chat; by default the model's own"},
        "sequence_length": {"type": "integer", "minimum": 8, "maximum": 65536, "default": 256},
        "held_out_blocks": {"type": "integer", "minimum": 2, "maximum": 100000, "default": 60},
        "held_out_share": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5, "default": 0.1},
        "max_tokens": {"type": "integer", "minimum": 0, "default": 0, "description": "of training text; 0: all"},
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "of the split"}
      }
    },
    "general": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "blocks": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 160,
                   "description": "of the model's calibration text, for the row and for KL"}
      }
    },
    "row": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "objective": {"enum": ["domain", "ntp", "joint"], "default": "domain"},
        "l2": {"type": "number", "minimum": 0, "default": 0.001},
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "default": 0.003, "description": "for ntp and joint"},
        "max_positions": {"type": "integer", "minimum": 1, "default": 40960, "description": "of each class"}
      }
    },
    "stitch": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "ridge": {"type": "number", "exclusiveMinimum": 0, "default": 0.000001,
                  "description": "of the stitches' least squares, each input at its own scale"},
        "max_positions": {"type": "integer", "minimum": 1, "default": 16384,
                          "description": "of the training text, and again of general text"}
      }
    },
    "train": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "steps": {"type": "integer", "minimum": 1, "maximum": 100000000, "default": 300},
        "batch": {"type": "integer", "minimum": 1, "maximum": 4096, "default": 1, "description": "sequences at once"},
        "accumulate": {"type": "integer", "minimum": 1, "maximum": 4096, "default": 1, "description": "batches a step"},
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "default": 0.002},
        "warmup": {"type": "integer", "minimum": 0, "default": 10, "description": "steps"},
        "floor": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.02, "description": "of the learning rate"},
        "weight_decay": {"type": "number", "minimum": 0, "default": 0.01},
        "clip": {"type": "number", "minimum": 0, "default": 1.0, "description": "largest gradient norm; 0: no limit"},
        "kl_weight": {"type": "number", "minimum": 0, "default": 1.0},
        "general_every": {"type": "integer", "minimum": 0, "default": 6,
                          "description": "one step in so many holds to the base on general text; 0: none"},
        "alone_share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5,
                        "description": "of sequences trained without the base beside the expert"},
        "dtype": {"enum": ["float32", "bfloat16"], "default": "float32"},
        "seed": {"type": "integer", "minimum": 0, "default": 0}
      }
    },
    "pass": {
      "type": "object", "additionalProperties": false, "default": {},
      "description": "instead of train, for an architecture that learns in one pass over its text",
      "properties": {
        "blocks": {"type": "integer", "minimum": 2, "maximum": 1000000, "default": 256,
                   "description": "sequences of text, at most, those held back included"},
        "held_back_blocks": {"type": "integer", "minimum": 1, "maximum": 100000, "default": 8,
                             "description": "of them, not learnt from: they tell how large a correction to make"}
      }
    },
    "streams": {
      "type": "object", "additionalProperties": false, "default": {},
      "properties": {
        "dtype": {"enum": ["float32", "bfloat16"], "default": "float32"},
        "budget_gib": {"type": "number", "exclusiveMinimum": 0, "default": 16,
                       "description": "of disk for cached outputs, all trainings together"}
      }
    },
    "checkpoint_every": {"type": "integer", "minimum": 1, "default": 50},
    "evaluate_every": {"type": "integer", "minimum": 0, "default": 0, "description": "steps; 0: only at the end"},
    "evaluate_blocks": {"type": "integer", "minimum": 2, "default": 60}
  }
})json";

} // namespace

const json::object& plan_schema() {
  static const json::value schema = parse_json(kPlanSchema, "the schema of a training plan");
  return schema.get_object();
}

} // namespace tenon
