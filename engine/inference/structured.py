"""Answers that follow a grammar: which tokens may come next, by llguidance.

A `Vocabulary` belongs to a model: it compiles grammars, on the thread that asks, and keeps them. A `Matcher` belongs to
a request and follows its answer. Its mask for the next token is computed while the model's forward pass runs, on a
thread of the vocabulary, so that a step does not wait for it; llguidance holds no lock of Python meanwhile.

JSON is written without line breaks and with at most one space after comma and colon: a grammar that allows any white
space lets a small model write nothing else.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from engine.errors import InvalidRequestError
from engine.inference.tools import JsonSchema

MAX_SCHEMA_LETTERS = 120_000
_MOST_GRAMMARS = 64
_NUM_THREADS = 2


class GrammarError(Exception):
    """An answer cannot go on within its grammar; the message says why."""


@dataclass(frozen=True, slots=True)
class SchemaOf:
    """A schema in a grammar, and the field of the request that a refusal of it names."""

    param: str
    schema: JsonSchema
    name: str = ""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar in llguidance's Lark dialect, and the schemas in it."""

    text: str
    schemas: tuple[SchemaOf, ...]


def content_grammar(schema: JsonSchema) -> Grammar:
    """Of an answer that is one JSON value."""
    return Grammar(f"start: {json_rule(schema)}", (SchemaOf("response_format", schema),))


def json_rule(schema: JsonSchema) -> str:
    """The right side of a rule for the JSON values that are valid against a schema."""
    options = {
        "whitespace_flexible": False,
        "item_separator": ",[ ]?",
        "key_separator": ":[ ]?",
        "coerce_one_of": not schema.is_strict,
        "lenient": not schema.is_strict,
    }
    return "%json " + json.dumps({**schema.schema, "x-guidance": options})


class Matcher:
    """Follows one answer through its grammar. Used by one thread at a time.

    Attributes:
        is_complete: the grammar is fulfilled and nothing more can come.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, threads: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._threads = threads
        self.is_complete = False
        self._next: Future[torch.Tensor] = threads.submit(self._compute)

    def allowed(self) -> torch.Tensor:
        """Which tokens may come next, shape (vocab,), bool, on the CPU.

        Raises:
            GrammarError: none may, or finding out takes more than llguidance's bounds.
        """
        return self._next.result()

    def accept(self, token_id: int) -> None:
        """Go on by a token, one of those allowed."""
        self._next.exception()  # llguidance's matcher takes one caller at a time
        self._matcher.consume_token(token_id)
        self.is_complete = self._matcher.is_stopped() and not self._matcher.is_error()
        if not self.is_complete:
            self._next = self._threads.submit(self._compute)

    def _compute(self) -> torch.Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise GrammarError(" ".join(self._matcher.get_error().split()))
        return torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_))


class Vocabulary:
    """A model's tokens as llguidance sees them. May be used from any thread.

    Raises:
        ValueError: llguidance cannot read the tokenizer.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: Iterable[int]) -> None:
        self._tokens = from_tokenizer(
            tokenizer, n_vocab=vocab_size, eos_token=sorted(end_ids) or None, slices=LLTokenizer.json_slices()
        )
        self._vocab_size = vocab_size
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="grammar")
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> Matcher:
        """A matcher at the beginning of an answer.

        Raises:
            InvalidRequestError: the grammar cannot be compiled; names the field whose schema is to blame.
        """
        with self._lock:
            compiled = self._compiled.pop(grammar.text, None) or self._compile(grammar)
            self._compiled[grammar.text] = compiled
            if len(self._compiled) > _MOST_GRAMMARS:
                self._compiled.popitem(last=False)
            return Matcher(compiled.deep_copy(), self._vocab_size, self._threads)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        for found in grammar.schemas:
            self._check(found)
        matcher = LLMatcher(self._tokens, grammar.text, log_level=0)
        if matcher.is_error():
            params = sorted({found.param for found in grammar.schemas})
            raise InvalidRequestError(
                f"{' and '.join(params)} make a grammar that is too complex: {_first_line(matcher.get_error())}; "
                "simplify the schemas",
                params[0],
            )
        matcher.compute_bitmask()  # the copies start with what this has found out
        return matcher

    def _check(self, found: SchemaOf) -> None:
        label = f"{found.param}: the schema" + (f" of {found.name}" if found.name else "")
        num_letters = len(json.dumps(found.schema.schema))
        if num_letters > MAX_SCHEMA_LETTERS:
            raise InvalidRequestError(
                f"{label} has {num_letters:,} letters, at most {MAX_SCHEMA_LETTERS:,} are allowed: shorten it",
                found.param,
            )
        reason = _why_not_guaranteed(found.schema) or self._why_not_compiled(found.schema)
        if reason:
            raise InvalidRequestError(
                f"{label} cannot be enforced, {_first_line(reason)}: change it, or send strict: false to have what "
                "cannot be enforced passed over",
                found.param,
            )

    def _why_not_compiled(self, schema: JsonSchema) -> str:
        is_error, messages = LLMatcher.validate_grammar_with_warnings(f"start: {json_rule(schema)}", self._tokens)
        return messages[0] if is_error else ""


def _why_not_guaranteed(schema: JsonSchema) -> str:
    """llguidance counts a key that is written twice as two; empty where that does not matter."""
    if schema.is_strict and _counts_keys(schema.schema):
        return "minProperties above 1 is not supported"
    return ""


def _counts_keys(node: Any) -> bool:
    if isinstance(node, dict):
        least = node.get("minProperties")
        return (isinstance(least, int) and least > 1) or any(map(_counts_keys, node.values()))
    return isinstance(node, list) and any(map(_counts_keys, node))


def _first_line(error: str) -> str:
    """llguidance's reason without the picture of the place in the grammar."""
    line = next(iter(error.strip().splitlines()), "")
    return line.rpartition("failed to compile JSON schema: ")[2] or line


_vocabularies: WeakKeyDictionary[Any, Vocabulary] = WeakKeyDictionary()
_vocabularies_lock = threading.Lock()


def vocabulary_of(tokenizer: Any, vocab_size: int, end_ids: Iterable[int]) -> Vocabulary:
    """The vocabulary of a loaded model, kept for as long as its tokenizer. The first call takes about a second.

    Raises:
        InvalidRequestError: the model's tokenizer cannot be constrained.
    """
    with _vocabularies_lock:
        found = _vocabularies.get(tokenizer)
        if found is None:
            try:
                found = _vocabularies[tokenizer] = Vocabulary(tokenizer, vocab_size, end_ids)
            except ValueError as error:
                raise InvalidRequestError(
                    f"this model's tokenizer cannot be held to a grammar ({_first_line(str(error))}): send no "
                    "response_format and no forced tool_choice"
                ) from error
        return found
