"""The network recogniser on small random models of both kinds, with processors made here: no file is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streamchar.errors import InputError
from streamchar.evaluation.asr import NetworkRecogniser, quiet_cuts
from streamchar.evaluation.recogniser import SAMPLE_RATE

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]


@pytest.fixture(scope="module")
def ctc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(
        vocab_size=len(LETTERS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_kernel=(20, 16), conv_stride=(20, 16), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, pad_token_id=0)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )
    folder = tmp_path_factory.mktemp("whisper")
    vocab = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    end = vocab["<|endoftext|>"] = len(vocab)
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    marks = ["<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=32, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=ids[marks[0]], suppress_tokens=None,
        begin_suppress_tokens=None))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids[marks[0]], eos_token_id=end, pad_token_id=end, bos_token_id=end, max_length=12,
        is_multilingual=True, lang_to_id={"<|en|>": ids["<|en|>"]}, no_timestamps_token_id=ids["<|notimestamps|>"],
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]})
    model.save_pretrained(folder)
    return folder


def sound(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))


def test_ctc_words_carry_their_seconds(ctc_folder: Path) -> None:
    recogniser = NetworkRecogniser(ctc_folder)
    first = recogniser.hear(sound(1.0))
    assert first == recogniser.hear(sound(1.0)) == NetworkRecogniser(ctc_folder).hear(sound(1.0))
    assert all(0 <= w.start < w.end <= 1 for w in first)
    # what the network would say is put in its mouth: S S _ ET | . IT'S, a frame of 20 ms each
    spoken = ["S", "S", "<pad>", "E", "T", "|", "<pad>", "I", "T", "'", "S"]
    logits = torch.nn.functional.one_hot(torch.tensor([LETTERS.index(s) for s in spoken]), len(LETTERS)).float()
    recogniser._model.forward = lambda **_: SimpleNamespace(logits=logits[None])
    words = recogniser.hear(sound(1.0))
    assert [w.text for w in words] == ["set", "it's"]
    assert [(round(w.start, 3), round(w.end, 3)) for w in words] == [(0.0, 0.1), (0.14, 0.22)]


def test_whisper_words_have_no_seconds_and_no_digits(whisper_folder: Path) -> None:
    recogniser = NetworkRecogniser(whisper_folder)
    words = recogniser.hear(sound(0.2))
    assert words == recogniser.hear(sound(0.2)) and all(np.isnan(w.start) for w in words)
    tokenizer = recogniser._processor.tokenizer
    forbidden = recogniser._model.generation_config.suppress_tokens
    assert set(tokenizer.convert_ids_to_tokens(forbidden)) == set("0123456789")
    chosen = tokenizer.convert_tokens_to_ids(list("SetĠred,Ġtwo")) + [tokenizer.eos_token_id]
    recogniser._model.generate = lambda **_: torch.tensor([chosen])
    assert [w.text for w in recogniser.hear(sound(1.0))] == ["set", "red", "two"]


def test_nothing_is_heard_in_silence(ctc_folder: Path, whisper_folder: Path) -> None:
    for folder in (ctc_folder, whisper_folder):
        recogniser = NetworkRecogniser(folder)
        assert recogniser.hear(torch.zeros(8000)) == recogniser.hear(torch.zeros(0)) == []
        with pytest.raises(InputError, match=r"\(samples,\)"):
            recogniser.hear(torch.zeros(1, 8000))


def test_long_sounds_are_cut_where_they_are_quiet() -> None:
    samples = np.random.default_rng(0).standard_normal(70 * SAMPLE_RATE).astype(np.float32)
    samples[28 * SAMPLE_RATE:29 * SAMPLE_RATE] = 0
    cuts = quiet_cuts(samples)
    assert cuts[0] == 0 and cuts[-1] == len(samples) and 28 <= cuts[1] / SAMPLE_RATE <= 29
    assert min(np.diff(cuts)) > 0 and max(np.diff(cuts)) <= 30 * SAMPLE_RATE and len(cuts) == 4
    assert quiet_cuts(samples[:1000]) == [0, 1000]


def test_folders_that_cannot_be_heard_with_are_named(tmp_path: Path, ctc_folder: Path) -> None:
    with pytest.raises(InputError, match="no config.json"):
        NetworkRecogniser(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(InputError, match="cannot be loaded"):
        NetworkRecogniser(tmp_path)
    settings = json.loads((ctc_folder / "processor_config.json").read_text())
    settings["feature_extractor"]["sampling_rate"] = 8000
    for file in ctc_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="hears at 8000 Hz"):
        NetworkRecogniser(tmp_path)
