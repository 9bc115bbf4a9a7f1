// The JSON Schemas of model.json and expert.json. Patterns are checked in manifest.cpp, not here: a regular expression
// run over a stranger's long string may exhaust the stack.
#include "registry/manifest.hpp"

namespace tenon {
namespace {

constexpr const char* kModelSchema = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "model.json",
  "type": "object",
  "additionalProperties": false,
  "required": ["schema", "kind", "name", "version", "family", "cut", "width", "layers", "vocab", "dtype", "tokenizer",
               "positions", "model_digest", "base", "files", "config"],
  "properties": {
    "schema": {"const": 1},
    "kind": {"const": "model"},
    "name": {"type": "string", "minLength": 1, "maxLength": 64},
    "version": {"type": "string", "maxLength": 128},
    "summary": {"type": "string", "maxLength": 1000},
    "license": {"type": "string", "maxLength": 200},
    "family": {"type": "string", "minLength": 1, "maxLength": 64},
    "cut": {
      "type": "object", "additionalProperties": false, "required": ["first", "last"],
      "properties": {"first": {"type": "integer", "minimum": 0}, "last": {"type": "integer", "minimum": 1}}
    },
    "width": {"type": "integer", "minimum": 1, "maximum": 1048576},
    "layers": {"type": "integer", "minimum": 1, "maximum": 65536},
    "vocab": {"type": "integer", "minimum": 1, "maximum": 16777216},
    "dtype": {"type": "string", "minLength": 1, "maxLength": 32},
    "tokenizer": {
      "type": "object", "additionalProperties": false, "required": ["digest"],
      "properties": {"digest": {"type": "string"}}
    },
    "positions": {"type": "string", "minLength": 1, "maxLength": 64},
    "model_digest": {"type": "string"},
    "base": {
      "type": "object", "additionalProperties": false, "required": ["name", "digest"],
      "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 64},
        "version": {"type": "string", "maxLength": 128},
        "digest": {"type": "string"}
      }
    },
    "calibration": {
      "type": ["object", "null"], "additionalProperties": false, "required": ["tokens", "kinds", "digest"],
      "properties": {
        "tokens": {"type": "integer", "minimum": 1},
        "kinds": {"type": "array", "maxItems": 256, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
        "digest": {"type": "string"}
      }
    },
    "files": {"$ref": "#/definitions/files"},
    "config": {"type": "object"}
  },
  "definitions": {
    "files": {
      "type": "array", "maxItems": 4096,
      "items": {
        "type": "object", "additionalProperties": false, "required": ["path", "role"],
        "properties": {
          "path": {"type": "string", "minLength": 1, "maxLength": 255},
          "role": {"type": "string", "minLength": 1, "maxLength": 32}
        }
      }
    }
  }
})json";

constexpr const char* kExpertSchema = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "expert.json",
  "type": "object",
  "additionalProperties": false,
  "required": ["schema", "kind", "name", "version", "plugin", "architecture", "config", "contract", "context", "uses",
               "weights", "row"],
  "properties": {
    "schema": {"const": 1},
    "kind": {"const": "expert"},
    "name": {"type": "string", "minLength": 1, "maxLength": 64},
    "version": {"type": "string", "maxLength": 128},
    "summary": {"type": "string", "maxLength": 1000},
    "license": {"type": "string", "maxLength": 200},
    "plugin": {
      "type": "object", "additionalProperties": false, "required": ["name", "range"],
      "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 64},
        "range": {"type": "string", "minLength": 1, "maxLength": 256}
      }
    },
    "architecture": {"type": "string", "minLength": 1, "maxLength": 128},
    "config": {"type": "object"},
    "contract": {
      "type": "object", "additionalProperties": false,
      "required": ["model_digest", "base_digest", "cut", "width", "tokenizer_digest", "dtype", "positions"],
      "properties": {
        "model_digest": {"type": "string"},
        "base_digest": {"type": "string"},
        "cut": {
          "type": "object", "additionalProperties": false, "required": ["first", "last"],
          "properties": {"first": {"type": "integer", "minimum": 0}, "last": {"type": "integer", "minimum": 1}}
        },
        "width": {"type": "integer", "minimum": 1, "maximum": 1048576},
        "tokenizer_digest": {"type": "string"},
        "dtype": {"type": "string", "minLength": 1, "maxLength": 32},
        "positions": {"type": "string", "minLength": 1, "maxLength": 64}
      }
    },
    "context": {"type": "string", "minLength": 1, "maxLength": 32},
    "uses": {"type": "array", "maxItems": 64, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
    "weights": {
      "type": "array", "maxItems": 65536,
      "items": {
        "type": "object", "additionalProperties": false, "required": ["name", "shape", "dtype", "source"],
        "properties": {
          "name": {"type": "string", "minLength": 1, "maxLength": 256},
          "shape": {"type": "array", "maxItems": 8, "items": {"type": "integer", "minimum": 0}},
          "dtype": {"type": "string", "minLength": 1, "maxLength": 32},
          "source": {"type": "string", "minLength": 1, "maxLength": 512}
        }
      }
    },
    "row": {
      "type": ["object", "null"], "additionalProperties": false, "required": ["digest"],
      "properties": {"digest": {"type": "string"}}
    },
    "profile": {
      "type": ["object", "null"], "additionalProperties": false, "required": ["digest"],
      "properties": {"digest": {"type": "string"}}
    },
    "evidence": {"type": "array", "maxItems": 4096, "items": {"type": "object"}},
    "provenance": {"type": "object"},
    "files": {
      "type": "array", "maxItems": 4096,
      "items": {
        "type": "object", "additionalProperties": false, "required": ["path", "role"],
        "properties": {
          "path": {"type": "string", "minLength": 1, "maxLength": 255},
          "role": {"type": "string", "minLength": 1, "maxLength": 32}
        }
      }
    }
  }
})json";

} // namespace

const Schema& model_schema() {
  static const Schema schema(parse_json(kModelSchema, "the schema of model.json"), "the schema of model.json");
  return schema;
}

const Schema& expert_schema() {
  static const Schema schema(parse_json(kExpertSchema, "the schema of expert.json"), "the schema of expert.json");
  return schema;
}

} // namespace tenon
