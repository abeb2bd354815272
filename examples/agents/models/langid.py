"""Which language a text is in: the model of the package py3langid."""

from __future__ import annotations

from typing import Any

from models.base import text_of, weights

MODEL = ("data", "model.npz.xz")


class LangId:
    """payload {"text": "..."} -> language (ISO 639-1) and confidence (0 to 1)."""

    def __init__(self) -> None:
        self.warm_up: dict[str, Any] = {"text": "The quick brown fox jumps over the lazy dog."}
        path = weights("py3langid", *MODEL)
        from py3langid.langid import LanguageIdentifier

        self._identifier = LanguageIdentifier.from_model_file(path, norm_probs=True)

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        language, confidence = self._identifier.classify(text_of(payload, "text"))
        return {"language": language, "confidence": round(float(confidence), 4)}


def load() -> LangId:
    """Raises FileNotFoundError naming the package that is missing."""
    return LangId()
