r"""Is a mathematical answer equal to the gold answer? `compare.check_math` is the door.

`notation` brings both sides to one notation, `normal` (with `formula` and `polynomial`) decides
most pairs exactly and at once, `symbolic` asks math-verify for the rest in the processes of
`pool`. Not here: where an answer stands in a reply (`cuvee.verify.answers`).
"""
