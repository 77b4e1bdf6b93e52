"""The contrastive losses as loops over anchors in double precision."""

import math

import torch

T = 0.1


def unit_rows(*shape, seed=0):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def dot(x, y):
    return sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))


def weigh(cosines, modulation="focal", gamma=1.0, normalise=True):
    """The factors of one set of positives, by their formulas."""
    if modulation == "none":
        return [1.0] * len(cosines)
    if modulation == "dclw":
        mean = sum(math.exp(s / 0.5) for s in cosines) / len(cosines)
        return [2 - math.exp(s / 0.5) / mean for s in cosines]
    if modulation == "focal":
        raw = [min(max((1 - s) / 2, 0), 1) ** gamma for s in cosines]
    else:
        raw = [max(0.0, 1.25 - s) for s in cosines]
    return [len(raw) * r / sum(raw) for r in raw] if normalise else raw


def naive_supcon(z, categories, t=T, decoupled=False, **modulation):
    total, anchors = 0.0, 0
    for i, c in enumerate(categories.tolist()):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if categories[j] == c]
        negatives = [j for j in others if categories[j] != c]
        if not positives or not negatives:
            continue
        anchors += 1
        weights = weigh([dot(z[i], z[p]) for p in positives], **modulation)
        below = sum(math.exp(dot(z[i], z[j]) / t) for j in (negatives if decoupled else others))
        for w, p in zip(weights, positives, strict=True):
            s = dot(z[i], z[p]) / t
            total += (-w * s + math.log(below) if decoupled else -w * math.log(math.exp(s) / below)) / len(positives)
    return total / anchors


def naive_smc(u, decouple, t=T, same=None, uniformity_weight=1.0, present=None, **modulation):
    """SMC term by term.

    ``same[i]`` lists the samples that count as positives of i; ``present[m][i]`` says whether i has modality m.
    """
    names, size = list(u), len(next(iter(u.values())))
    same = same or [[i] for i in range(size)]
    present = present or {m: [True] * size for m in names}
    terms, inside = [], []
    for m in names:
        for n in names:
            if m == n:
                continue
            pairs = [(i, p) for i in range(size) for p in same[i] if present[m][i] and present[n][p]]
            factors = weigh([dot(u[m][i], u[n][p]) for i, p in pairs], **modulation) if pairs else []
            weights = dict(zip(pairs, factors, strict=True))
            for i in range(size):
                against = [(n, j) for j in range(size) if j not in same[i]]
                if decouple == "keep_intra":
                    against += [(m, j) for j in range(size) if j not in same[i]]
                if decouple == "self_only":
                    against = [(k, j) for k in names for j in range(size) if (k, j) != (m, i)]
                against = [(k, j) for k, j in against if present[k][j]]
                positives = [p for p in same[i] if (i, p) in weights]
                if not positives or all(j in same[i] for _, j in against):
                    continue
                log_below = math.log(sum(math.exp(dot(u[m][i], u[k][j]) / t) for k, j in against))
                total = 0.0
                for p in positives:
                    s, w = dot(u[m][i], u[n][p]) / t, weights[i, p]
                    total += w * (log_below - s) if decouple == "self_only" else log_below - w * s
                terms.append(total / len(positives))
        for i in range(size):
            others = [j for j in range(size) if j not in same[i] and present[m][j]]
            if others and present[m][i]:
                inside.append(math.log(sum(math.exp(dot(u[m][i], u[m][j]) / t) for j in others)))
    loss = sum(terms) / len(terms)
    return loss + uniformity_weight * sum(inside) / len(inside) if decouple == "uniformity" else loss


def plain_supcon(z, categories, t):
    """SupCon (Khosla et al., eq. 2), straight from the paper."""
    losses = []
    for i in range(len(z)):
        rest = torch.arange(len(z)) != i
        positives = rest & (categories == categories[i])
        if positives.any() and (rest & ~positives).any():
            log_probability = (z @ z[i] / t)[positives] - (z @ z[i] / t)[rest].exp().sum().log()
            losses.append(-log_probability.mean())
    return torch.stack(losses).mean()
