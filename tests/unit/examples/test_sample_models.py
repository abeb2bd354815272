"""Each model does what it is for, with its real weights."""

from __future__ import annotations

import base64
import importlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

NAMES = ("langid", "magika", "minilm", "ocr", "orientation", "vad")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: importlib.import_module(f"models.{name}").load() for name in NAMES}


def page(lines: list[str], turned: int = 0) -> str:
    """Base64 of a PNG with printed lines; `turned` is degrees counter-clockwise."""
    image = Image.new("RGB", (700, 40 + 56 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((20, 20 + 56 * number), line, font=ImageFont.load_default(34), fill="black")
    file = io.BytesIO()
    image.rotate(turned, expand=True).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def pcm16(samples: Any) -> str:
    return base64.b64encode(np.asarray(samples).astype("<i2").tobytes()).decode()


def vowel() -> Any:
    """Two seconds of a sung "ah": a voice's harmonics through three formants, in syllables of 250 ms."""
    time = np.arange(32_000) / 16_000
    pitch = 120 + 15 * np.sin(2 * np.pi * 2.5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    sound = np.zeros(len(time))
    for number in range(1, 35):
        formants = ((700, 120, 1.0), (1220, 150, 0.6), (2600, 250, 0.3))
        gain = 0.02 + sum(np.exp(-(((number * pitch - f) / width) ** 2)) * high for f, width, high in formants)
        sound += gain * np.sin(number * phase)
    return sound / np.abs(sound).max() * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)) ** 0.7 * 12_000


def test_sentences_that_mean_the_same_are_closer(models: dict[str, Any]) -> None:
    candidates = ["A cheetah runs after its prey.", "A man is eating a piece of bread.", "The girl carries a baby."]
    matches = models["minilm"].infer({"query": "A man is eating food.", "candidates": candidates})["matches"]
    assert matches[0]["text"] == "A man is eating a piece of bread."
    assert matches[0]["similarity"] == pytest.approx(0.755, abs=0.01)  # as the published model has it
    assert matches[1]["similarity"] < 0.3


def test_embeddings_have_length_one(models: dict[str, Any]) -> None:
    answer = models["minilm"].infer({"texts": ["one", "two words"]})
    assert answer["dimensions"] == 384
    assert np.linalg.norm(answer["embeddings"], axis=1) == pytest.approx([1, 1], abs=1e-4)


def test_the_weights_are_one_read_only_mapping(models: dict[str, Any]) -> None:
    for tensor in models["minilm"]._tensors.values():
        assert not tensor.flags.writeable
        assert not tensor.flags.owndata


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('import sys\n\n\ndef main() -> int:\n    print("hello", sys.argv)\n    return 0\n\n\nmain()\n', "python"),
        ("fleet: reference\ngroups:\n  core:\n    agents:\n      - name: one\n        port: 1\n", "yaml"),
        ('#include <stdio.h>\n\nint main(void) {\n    printf("hi\\n");\n    return 0;\n}\n', "c"),
    ],
)
def test_file_types_are_told_by_content(models: dict[str, Any], text: str, label: str) -> None:
    assert models["magika"].infer({"text": text})["label"] == label


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("This is a plain sentence in English about the weather.", "en"),
        ("Das ist ein schöner Tag im Wald und wir gehen spazieren.", "de"),
        ("Магазин закрыт по воскресеньям.", "ru"),
        ("Magandang umaga sa inyong lahat, kumusta kayo?", "tl"),
    ],
)
def test_languages_are_told(models: dict[str, Any], text: str, language: str) -> None:
    assert models["langid"].infer({"text": text})["language"] == language


def test_noise_and_silence_are_no_speech_and_a_voice_is(models: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).normal(0, 1000, 16_000)
    assert not models["vad"].infer({"pcm16": pcm16(noise)})["speech"]
    assert not models["vad"].infer({"pcm16": pcm16(np.zeros(16_000))})["speech"]
    assert models["vad"].infer({"pcm16": pcm16(vowel())})["speech"]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_it_is_told_which_way_up_a_page_stands(models: dict[str, Any], degrees: int) -> None:
    image = page(["The fleet of agents runs on two hosts"] * 9, turned=-degrees)
    assert models["orientation"].infer({"image": image})["degrees"] == degrees


def test_printed_lines_are_read(models: dict[str, Any]) -> None:
    found = models["ocr"].infer({"image": page(["Outrider reads 24 lines", "Hello GPU host 7"])})["lines"]
    assert [line["text"] for line in found] == ["Outrider reads 24 lines", "Hello GPU host 7"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "payload", [{}, {"text": 1, "texts": [], "query": "", "image": "x", "pcm16": "AA==", "data": "?"}]
)
def test_bad_payloads_are_refused(models: dict[str, Any], name: str, payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        models[name].infer(payload)
