"""Workers: what maps a function over rows on a cluster (`workers: ray`).

`cluster` opens a Ray and describes its nodes, `nodes` checks each of them before work begins,
`chunks` maps a function over chunks of rows, in order. Nothing here knows what the function
does. The pool of one machine stands where it is used (`cuvee.verify.math.pool`).
"""
