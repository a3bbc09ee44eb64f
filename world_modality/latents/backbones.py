"""Small networks that stand in for published ones at embedded scale, saved in the published format.

A small V-JEPA 2 stands in for facebook/vjepa2-*, a small SmolVLM for HuggingFaceTB/SmolVLM2-*. `from_pretrained` loads
both folders, so every later stage runs the same code as with the published networks. A folder depends on its spec
alone: on one machine and torch version, the same spec gives the same bytes (no paths, no times).

Non-obvious behaviours of transformers and LeRobot:
* LeRobot's SmolVLA reads only the config, the tokenizer and the processor of its VLM when `load_vlm_weights=False`;
  the policy's own seed draws the weights. So the SmolVLM folder holds no weights.
* LeRobot's defaults (`freeze_vision_encoder`, `train_expert_only`) freeze the VLM. A small VLM starts as noise, so
  switch both off when training on one.
* Input and output embeddings must be untied on both levels of the config: LeRobot freezes `lm_head` by name, and a tied
  one has no name of its own.
* SmolVLA silently truncates instructions to 48 tokens, and an instruction spelled in bytes would not fit. So the
  tokenizer has one token for each word of LIBERO's instructions.
* V-JEPA 2's stock video processor resizes to 256/224 of the crop and cuts the border away; the one saved here only
  rescales and normalizes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VJEPA2Config,
    VJEPA2Model,
    VJEPA2VideoProcessor,
)

from world_modality.artifacts.files import atomic_path
from world_modality.experiment.sections import EncoderWeights, Vlm

TUBELET = 2  # frames V-JEPA 2 merges into one token, as published
FRAMES_PER_CLIP = 64

# Special tokens of HuggingFaceTB/SmolVLM2-500M-Video-Instruct.
SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<end_of_utterance>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}
IMAGE_TOKENS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}

# Every word in the instructions of libero_spatial, libero_object, libero_goal and libero_10.
INSTRUCTION_WORDS = """
alphabet and back basket bbq between black book both bottle bottom bowl box butter cabinet caddy center cheese chocolate
close compartment cookie cream drawer dressing from front in inside it juice ketchup left microwave middle milk moka mug
next of on open orange pick place plate pot pots pudding push put rack ramekin right salad sauce soup stove table the to
tomato top turn up white wine wooden yellow
"""


# ---- V-JEPA 2 -------------------------------------------------------------------------------------------------------


def build_small_encoder(spec: EncoderWeights, folder: str | Path) -> None:
    """Write a V-JEPA 2 of the spec's sizes, with random weights drawn from `spec.seed`, and its video processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = VJEPA2Model(_encoder_config(spec))
    processor = VJEPA2VideoProcessor(crop_size=spec.image_size, do_resize=False, do_center_crop=False)
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)


def _encoder_config(spec: EncoderWeights) -> VJEPA2Config:
    return VJEPA2Config(
        crop_size=spec.image_size,
        patch_size=spec.patch_size,
        tubelet_size=TUBELET,
        frames_per_clip=FRAMES_PER_CLIP,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        # The predictor and the pooler are never run, so they are as small as possible.
        pred_hidden_size=spec.hidden_size // spec.heads,
        pred_num_hidden_layers=1,
        pred_num_attention_heads=1,
        num_pooler_layers=1,
    )


# ---- SmolVLM --------------------------------------------------------------------------------------------------------


def build_small_vlm(spec: Vlm, folder: str | Path) -> None:
    """Write a SmolVLM of the spec's sizes: config, tokenizer and processor, for SmolVLA's `vlm_model_name`."""
    tokenizer = _tokenizer()
    with atomic_path(folder) as temporary:
        _vlm_config(spec, tokenizer).save_pretrained(temporary)
        _vlm_processor(spec, tokenizer).save_pretrained(temporary)


def _vlm_config(spec: Vlm, tokenizer: PreTrainedTokenizerFast) -> SmolVLMConfig:
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=8 * spec.hidden_size // 3,  # SmolLM2's ratio
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads // 2,
        tie_word_embeddings=False,
        **tokens,
    )
    vision = {
        "image_size": spec.image_size,
        "patch_size": spec.patch_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": 2 * spec.hidden_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
    }
    return SmolVLMConfig(
        text_config=text,
        vision_config=vision,
        scale_factor=spec.pixel_shuffle,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKENS["image_token"]),
        tie_word_embeddings=False,
        **tokens,
    )


def _vlm_processor(spec: Vlm, tokenizer: PreTrainedTokenizerFast) -> SmolVLMProcessor:
    size = {"longest_edge": spec.image_size}
    sampling = {"max_frames": 8, "fps": 1, "video_size": size}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=size, max_image_size=size, do_image_splitting=False),
        tokenizer,
        SmolVLMVideoProcessor(size=size, max_image_size=size, video_sampling=sampling),
        image_seq_len=(spec.image_size // spec.patch_size // spec.pixel_shuffle) ** 2,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE: LIBERO's words are one token each, and any other text is spelled in bytes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=list(dict.fromkeys([*SPECIAL_TOKENS.values(), *IMAGE_TOKENS.values()])),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train_from_iterator(INSTRUCTION_WORDS.split(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=IMAGE_TOKENS, **SPECIAL_TOKENS)
