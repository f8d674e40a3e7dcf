"""Span corruption a token at a time, in the words of Raffel et al. 2020."""


def corrupt(tokens, noise, sentinels, eos):
    """Inputs and targets: each run of noise is one sentinel, and what it held."""
    inputs, targets, spans = [], [], 0
    for i, (token, hidden) in enumerate(zip(tokens, noise, strict=True)):
        begins = hidden and (i == 0 or not noise[i - 1])
        if begins:
            inputs.append(sentinels[spans])
            targets.append(sentinels[spans])
            spans += 1
        (targets if hidden else inputs).append(token)
    return [*inputs, eos], [*targets, eos]


def restore(inputs, targets, sentinels, eos):
    """The text that both sides are made of."""
    known = set(sentinels)
    held, current = {}, None
    for token in targets:
        if token in known:
            current = token
            held[current] = []
        elif token != eos:
            held[current].append(token)
    text = []
    for token in inputs:
        if token in known:
            text += held[token]
        elif token != eos:
            text.append(token)
    return text
