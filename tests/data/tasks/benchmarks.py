"""Records of the benchmarks, and the text that T5 makes of each, by hand.

Most are the examples of Raffel et al. 2020, appendix D, shortened; where the paper
and the code of record differ (COPA's labels, WiC without part of speech), the code's.
"""

from typing import Any, NamedTuple


class Benchmark(NamedTuple):
    """One dataset of TFDS.

    Attributes:
      name: dataset and config.
      version: of the dataset.
      records: each with the input and the accepted answers that are expected.
      unlabelled: what a record of the test split has in place of an answer.
      validation_split: what the dataset calls it.
    """

    name: str
    version: str
    records: list[tuple[dict[str, Any], str, tuple[str, ...]]]
    unlabelled: dict[str, Any]
    validation_split: str = "validation"


def _labelled(
    name: str,
    *rows: tuple[dict[str, str], str, dict[int | float, str]],
    validation_split: str = "validation",
    **more: Any,
) -> Benchmark:
    """Each row is a record's texts, its input, and the target for each label."""
    records = [
        (texts | more | {"label": label, "idx": 0}, text, (target,))
        for texts, text, targets in rows
        for label, target in targets.items()
    ]
    version = "2.0.0" if name.startswith("glue/") else "1.0.2"
    return Benchmark(name, version, records, {"label": -1}, validation_split)


_MNLI_MATCHED = (
    {
        "premise": "yeah well losing is i mean i'm originally from Saint Louis",
        "hypothesis": "The St. Louis Cardinals have always won. ",
    },
    "mnli hypothesis: The St. Louis Cardinals have always won.  premise: "
    "yeah well losing is i mean i'm originally from Saint Louis",
    {0: "entailment", 1: "neutral", 2: "contradiction"},
)
_MNLI_MISMATCHED = (
    {"premise": "Um, yes.", "hypothesis": "No?"},
    "mnli hypothesis: No? premise: Um, yes.",
    {2: "contradiction"},
)

_GLUE = {
    "glue_cola": _labelled(
        "glue/cola",
        (
            {"sentence": "John made Bill master of himself."},
            "cola sentence: John made Bill master of himself.",
            {0: "unacceptable", 1: "acceptable"},
        ),
    ),
    "glue_sst2": _labelled(
        "glue/sst2",
        (
            {"sentence": "it confirms fincher ’s status as a film maker "},  # noqa: RUF001
            "sst2 sentence: it confirms fincher ’s status as a film maker",  # noqa: RUF001
            {0: "negative", 1: "positive"},
        ),
    ),
    "glue_mrpc": _labelled(
        "glue/mrpc",
        (
            {
                "sentence1": 'We acted because we saw it , " Rumsfeld said .',
                "sentence2": "Rather , the US acted .",
            },
            'mrpc sentence1: We acted because we saw it , " Rumsfeld said . '
            "sentence2: Rather , the US acted .",
            {0: "not_equivalent", 1: "equivalent"},
        ),
    ),
    # Halves go to the even neighbour: 2.5 is 12.5 steps, 3.5 is 17.5.
    "glue_stsb": _labelled(
        "glue/stsb",
        (
            {
                "sentence1": "Representatives for Puretunes could not be reached.",
                "sentence2": "Puretunes representatives could not be located.",
            },
            "stsb sentence1: Representatives for Puretunes could not be reached. "
            "sentence2: Puretunes representatives could not be located.",
            {
                0.0: "0.0",
                0.5: "0.4",
                0.75: "0.8",
                1.5: "1.6",
                2.5: "2.4",
                3.2: "3.2",
                3.25: "3.2",
                3.5: "3.6",
                3.533: "3.6",
                4.89: "4.8",
                4.91: "5.0",
                5.0: "5.0",
            },
        ),
    ),
    "glue_qqp": _labelled(
        "glue/qqp",
        (
            {
                "question1": "What was desirable in ancient Rome?",
                "question2": "How I GET OPPERTINUTY TO JOIN IT COMPANY?",
            },
            "qqp question1: What was desirable in ancient Rome? "
            "question2: How I GET OPPERTINUTY TO JOIN IT COMPANY?",
            {0: "not_duplicate", 1: "duplicate"},
        ),
    ),
    "glue_mnli": _labelled(
        "glue/mnli", _MNLI_MATCHED, validation_split="validation_matched"
    ),
    "glue_mnli_mismatched": _labelled(
        "glue/mnli", _MNLI_MISMATCHED, validation_split="validation_mismatched"
    ),
    "glue_qnli": _labelled(
        "glue/qnli",
        (
            {
                "question": "Where did Jebe die?",
                "sentence": "Jebe died on the road back to Samarkand.",
            },
            "qnli question: Where did Jebe die? "
            "sentence: Jebe died on the road back to Samarkand.",
            {0: "entailment", 1: "not_entailment"},
        ),
    ),
    "glue_rte": _labelled(
        "glue/rte",
        (
            {
                "sentence1": "Some 3000 declared themselves as ethnic Italians.",
                "sentence2": "Slovenia has 3,000 inhabitants.",
            },
            "rte sentence1: Some 3000 declared themselves as ethnic Italians. "
            "sentence2: Slovenia has 3,000 inhabitants.",
            {0: "entailment", 1: "not_entailment"},
        ),
    ),
    # The other way round than in RTE and QNLI.
    "glue_wnli": _labelled(
        "glue/wnli",
        (
            {
                "sentence1": "The drain is clogged. It has to be cleaned.",
                "sentence2": "The drain has to be cleaned.",
            },
            "wnli sentence1: The drain is clogged. It has to be cleaned. "
            "sentence2: The drain has to be cleaned.",
            {0: "not_entailment", 1: "entailment"},
        ),
    ),
}

_PARAGRAPH = (
    "<b>Sent 1: </b>Once upon a time, there was a squirrel named Joey.<br>"
    "<b>Sent 2: </b>One morning, Joey woke up.<br>"
)
_MULTIRC_INPUT = (
    "multirc question: Why was Joey surprised? answer: {} paragraph: "
    "Sent 1: Once upon a time, there was a squirrel named Joey. "
    "Sent 2: One morning, Joey woke up."
)


def _multirc(question: int, answer: str, label: int):
    record = {
        "paragraph": _PARAGRAPH,
        "question": "Why was Joey surprised?",
        "answer": answer,
        "label": label,
        "idx": {"paragraph": 5, "question": question, "answer": label},
    }
    bare = answer.replace("<b>", "").replace("</b>", "")
    return record, _MULTIRC_INPUT.format(bare), (("False", "True")[label],)


_RECORD = (
    {
        "passage": "It was late.\n@highlight\nA goal by Rooney\n@highlight\nHe left!\n"
        "@highlight\nThe end",
        "query": "@placeholder scored for England",
        "entities": ["England", "Rooney", "Wayne Rooney"],
        "answers": ["Rooney", "Wayne Rooney"],
        "idx": {"passage": 3, "query": 4},
    },
    "record query: @placeholder scored for England "
    "entities: England, Rooney, Wayne Rooney "
    "passage: It was late. A goal by Rooney. He left! The end",
    ("Rooney", "Wayne Rooney"),
)


def _wsc(text: str, referent: str, pronoun: str, index: int, label: int, expected: str):
    record = {
        "text": text,
        "span1_text": referent,
        "span1_index": 0,
        "span2_text": pronoun,
        "span2_index": index,
        "label": label,
        "idx": 0,
    }
    return record, expected, (referent,)


_SUPER_GLUE = {
    "super_glue_boolq": _labelled(
        "super_glue/boolq",
        (
            {
                "question": "can dogs eat elephant ears",
                "passage": "Elephant ear -- plants of that name are toxic.",
            },
            "boolq passage: Elephant ear -- plants of that name are toxic. "
            "question: can dogs eat elephant ears",
            {0: "False", 1: "True"},
        ),
    ),
    "super_glue_cb": _labelled(
        "super_glue/cb",
        (
            {
                "premise": "Valence the virtuous valet. Did he think he helped?",
                "hypothesis": "Valence was helping",
            },
            "cb hypothesis: Valence was helping "
            "premise: Valence the virtuous valet. Did he think he helped?",
            {0: "entailment", 1: "contradiction", 2: "neutral"},
        ),
    ),
    "super_glue_copa": _labelled(
        "super_glue/copa",
        (
            {
                "premise": "Political violence broke out in the nation.",
                "choice1": "Many citizens relocated to the capitol.",
                "choice2": "Many citizens took refuge in other territories.",
                "question": "effect",
            },
            "copa choice1: Many citizens relocated to the capitol. "
            "choice2: Many citizens took refuge in other territories. "
            "premise: Political violence broke out in the nation. question: effect",
            {0: "choice1", 1: "choice2"},
        ),
    ),
    "super_glue_multirc": Benchmark(
        "super_glue/multirc",
        "1.0.2",
        [
            _multirc(1, "There was a <b>T-REX</b> in his garden.", 1),
            _multirc(1, "Joey was late.", 0),
            _multirc(2, "Nobody knows.", 1),
        ],
        {"label": -1},
    ),
    "super_glue_record": Benchmark(
        "super_glue/record", "1.0.2", [_RECORD], {"answers": []}
    ),
    "super_glue_rte": _labelled(
        "super_glue/rte",
        (
            {"premise": "No weapons were found.", "hypothesis": "Weapons were found."},
            "rte hypothesis: Weapons were found. premise: No weapons were found.",
            {0: "entailment", 1: "not_entailment"},
        ),
    ),
    "super_glue_wic": _labelled(
        "super_glue/wic",
        (
            {
                "word": "deliberation",
                "sentence1": "It was the deliberation of his act that was insulting.",
                "sentence2": "The deliberations of the jury.",
            },
            "wic sentence1: It was the deliberation of his act that was insulting. "
            "sentence2: The deliberations of the jury. word: deliberation",
            {0: "False", 1: "True"},
        ),
        start1=11,
        end1=23,
        start2=4,
        end2=17,
    ),
    "super_glue_wsc": Benchmark(
        "super_glue/wsc.fixed",
        "1.0.2",
        [
            _wsc(
                "The stable was very roomy, which made it pleasant and airy.",
                "The stable",
                "it",
                7,
                1,
                "wsc: The stable was very roomy, which made *it* pleasant and airy.",
            ),
            _wsc(
                "Bob asked Tom if he can lend some money. ",
                "Bob",
                "he",
                4,
                0,
                "wsc: Bob asked Tom if *he* can lend some money.",
            ),
            # The two sentences of the dataset that T5's code treats by themselves:
            # a comma without a space, and an index that is wrong by one.
            _wsc(
                'John laughed out quite loud. "Good for him," he said. ',
                "John",
                "him",
                7,
                1,
                'wsc: John laughed out quite loud. "Good for *him* ," he said.',
            ),
            _wsc(
                "Some day they might want to use it , but really for now, what more?",
                "the pebble",
                "it",
                6,
                1,
                "wsc: Some day they might want to use *it* , but really for now, "
                "what more?",
            ),
        ],
        {"label": -1},
    ),
}

_QUESTIONS = {
    "squad": Benchmark(
        "squad/v1.1",
        "3.0.0",
        [
            (
                {
                    "id": "1",
                    "title": "Oxygen",
                    "context": "Hyperbaric (high-pressure)  medicine\nuses O2: "
                    "carbon monoxide is displaced.",
                    "question": "What does O2 in the patient's lungs displace?",
                    "answers": {
                        "text": ["carbon monoxide", "carbon monoxide", "monoxide."],
                        "answer_start": [46, 46, 53],
                    },
                },
                "question: What does O2 in the patient ' s lungs displace ? "
                "context: Hyperbaric ( high - pressure ) medicine uses O2 : "
                "carbon monoxide is displaced .",
                ("carbon monoxide", "monoxide ."),
            )
        ],
        {"answers": {"text": [], "answer_start": []}},
    ),
    "trivia_qa": Benchmark(
        "trivia_qa/unfiltered.nocontext",
        "1.1.0",
        [
            (
                {
                    "question": "Who was the man behind The Chipmunks?",
                    "question_id": "tc_2",
                    "question_source": "http://www.triviacountry.com/",
                    "entity_pages": [],
                    "search_results": [],
                    "answer": {
                        "aliases": ["Seville, David", "David Seville", "Dave Seville"],
                        "normalized_aliases": ["seville david", "david seville"],
                        "matched_wiki_entity_name": "",
                        "normalized_matched_wiki_entity_name": "",
                        "normalized_value": "david seville",
                        "type": "WikipediaEntity",
                        "value": "David Seville",
                    },
                },
                "trivia_qa question: Who was the man behind The Chipmunks?",
                ("David Seville", "Seville, David", "Dave Seville"),
            )
        ],
        {"answer": {"aliases": [], "normalized_aliases": [], "value": "<unk>"}},
    ),
}

BENCHMARKS: dict[str, Benchmark] = _GLUE | _SUPER_GLUE | _QUESTIONS
