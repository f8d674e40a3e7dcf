"""Sizes of the published models."""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Tables 7 and 9"
PUBLISHED = {
    "columns": ("model", "parameters", "experts"),
    "rows": (
        ("T5-Base", "0.2 B", "-"),
        ("T5-XXL", "11 B", "-"),
        ("Switch-Base", "7 B", 128),
        ("Switch-XXL", "395 B", "64 (sic)"),
        ("Switch-C", "1571 B", 2048),
    ),
}

CLAIMS = {
    "parameters": {
        "statement": "T5 and Switch have the published numbers of parameters.",
        "published": "Table 9 and, for the first digits of T5- and Switch-Base, Table 7",
        "test": "exact",
        "check": "switch_parameters",
        "settings": scales.EXACT,
        "note": "To 2 %. Switch-Large is left out: its widths make 4 % more.",
    },
    "sizes_by_experts": {
        "statement": "Switch-Base has 1.1, 2.0, 3.8, 7.4 and 14.7 B by its experts.",
        "published": "Table 7",
        "test": "exact",
        "check": "switch_base_sizes",
        "settings": scales.EXACT,
    },
    "xxl_has_128_experts": {
        "statement": "Switch-XXL's 395 B take 128 experts, not the printed 64.",
        "published": "Table 9 prints 64",
        "test": "exact",
        "check": "switch_xxl_experts",
        "settings": scales.EXACT,
    },
    "top2_slots": {
        "statement": "With the paper's capacity top-2 at a factor of 1 drops half its choices.",
        "published": "the Mesh-TensorFlow code: capacity is not multiplied by K",
        "test": "exact",
        "check": "top2_slots",
        "settings": scales.EXACT,
    },
}
