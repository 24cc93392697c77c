"""Small `tokenizer.json` files of each kind, beside the one that the tool trains."""

SPECIAL = ("<unk>", "<s>", "</s>")
WORDS = ("once", "upon", "a", "time", "there", "was", "king", "wolf")


def tokenizer(model, pre_tokenizer, decoder, normalizer=None):
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, text in enumerate(SPECIAL)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None,
            "decoder": decoder, "model": model}


def byte_level():
    """GPT-2's kind: each byte is a printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    pieces = [*SPECIAL, *(letters[byte] for byte in range(256)), "\u0120t", "he", "\u0120the"]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": {piece: i for i, piece in enumerate(pieces)},
             "merges": [["\u0120", "t"], ["h", "e"], ["\u0120t", "he"]]}
    return tokenizer(model, step, step)


def unigram():
    """T5's kind: pieces with scores."""
    pieces = [[text, 0.0] for text in SPECIAL] + [["\u2581", -2.0]]
    pieces += [[f"\u2581{word}", -3.0] for word in WORDS]
    pieces += [[chr(letter), -6.0] for letter in [*range(97, 123), 79]]
    step = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return tokenizer({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}, step, step)


def word_piece():
    """BERT's kind: beginnings and continuations of words."""
    letters = [chr(letter) for letter in range(97, 123)]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS[:2]]
    model = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {piece: i for i, piece in enumerate(pieces)}}
    lower = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
             "strip_accents": None, "lowercase": True}
    return tokenizer(model, {"type": "BertPreTokenizer"},
                     {"type": "WordPiece", "prefix": "##", "cleanup": True}, lower)


KINDS = {"byte_level": byte_level, "unigram": unigram, "word_piece": word_piece}
