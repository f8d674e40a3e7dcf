"""Naive synthetic text: one unit after the other, from the same random bits."""

HALF = 1 << 32


def pick(probabilities, half):
    """The first outcome whose cumulative share of 2^32 exceeds `half`."""
    total = 0
    for outcome, probability in enumerate(probabilities):
        total += round(probability * HALF)
        if half < total:
            return outcome
    raise AssertionError("probabilities do not sum to 1")


def row(process, tables, bits, length):
    """Tokens, documents and domains of one row, three lists."""
    bits = [int(b) for b in bits]
    words, fact_words = process.num_words, process.key_length
    domain = pick(process.domains.probabilities, bits[0] % HALF)
    tokens, documents, domains = [1], [1], [domain]
    document, history = 1, [0] * process.order
    for unit in bits[1:]:
        kind = pick(process.kinds.probabilities, unit // HALF)
        choice = unit % HALF
        new = []
        if kind == 0:
            context = 0
            for word in history[-process.order :]:
                context = context * words + word
            rank = pick(process.followers.probabilities, choice)
            word = int(tables.followers[domain, context, rank])
            history.append(word)
            new = [word + 4]
        elif kind == 1:
            fact = pick(process.facts.probabilities, choice)
            number = int(tables.multipliers[domain]) * fact
            number = (number + int(tables.offsets[domain])) % words**fact_words
            key = []
            for _ in range(fact_words):
                key.insert(0, number % words)
                number //= words
            new = [3] + [w + 4 for w in [*key, int(tables.values[domain, fact])]]
        else:
            new = [2]
        tokens += new
        documents += [document] * len(new)
        domains += [domain] * len(new)
        if kind == 2:
            document, history = document + 1, [0] * process.order
            domain = pick(process.domains.probabilities, choice)
            tokens, documents = [*tokens, 1], [*documents, document]
            domains = [*domains, domain]
    return tokens[:length], documents[:length], domains[:length]


def without_ends(tokens, documents, domains):
    """The same lists without BOS and EOS; documents that are left count from 1."""
    left, seen = [[], [], []], []
    for token, document, domain in zip(tokens, documents, domains, strict=True):
        if token in (1, 2):
            continue
        if document not in seen:
            seen.append(document)
        left[0].append(token)
        left[1].append(len(seen))
        left[2].append(domain)
    return left


def token_probability(process, tables, domain, document, token):
    """Of `token` after the tokens of `document`, by looking through all tables."""
    words, kinds = process.num_words, process.kinds.probabilities
    history, key = [0] * process.order, None
    for before in document[1:]:
        if key is not None and len(key) <= process.key_length:
            key.append(before - 4)
        elif before == 3:
            key = []
        else:
            key = None
            history.append(before - 4)
    if key is not None and len(key) <= process.key_length:
        return _fact_probability(process, tables, domain, key, token - 4)
    if token in (0, 1):
        return 0.0
    if token in (2, 3):
        return kinds[2] if token == 2 else kinds[1]
    context = 0
    for word in history[-process.order :]:
        context = context * words + word
    followers = tables.followers[domain, context].tolist()
    if token - 4 not in followers:
        return 0.0
    rank = followers.index(token - 4)
    return kinds[0] * process.followers.probabilities[rank]


def _fact_probability(process, tables, domain, key, word):
    """Of the next word of a fact, which has begun with the words `key`."""
    matching = {True: 0.0, False: 0.0}
    for fact, probability in enumerate(process.facts.probabilities):
        number = int(tables.multipliers[domain]) * fact + int(tables.offsets[domain])
        number %= process.num_keys
        whole = []
        for _ in range(process.key_length):
            whole.insert(0, number % process.num_words)
            number //= process.num_words
        whole.append(int(tables.values[domain, fact]))
        if whole[: len(key)] == key:
            matching[whole[len(key)] == word] += probability
    total = matching[True] + matching[False]
    return matching[True] / total if total else 0.0
