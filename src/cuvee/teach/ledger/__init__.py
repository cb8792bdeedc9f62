"""The ledger: every answer that was ever received, kept by the hash of its request.

One SQLite file, shared by all runs of a machine and by several processes at once, or a
PostgreSQL database for many machines: what was bought, by whom and at what cost, and what was
sent whose fate is unknown. `store` has the `Ledger` itself, `entries` what goes in and comes
out, `accounts` the reservations and running totals, `writer` the thread that commits. `stores`
is where the two kinds meet, `file` and `postgres` are what each has of its own. Around it:
`survey` (statistics, pruning), `carry` (export, import), `copies` (moving a whole ledger) and
`check` (verifying), which are the commands `cuvee ledger ...`. Not here: what a request or an
answer means (`cuvee.teach.client`, `cuvee.teach.reply`). Errors are no answers and are never
stored; neither are API keys.
"""

from cuvee.teach.ledger.entries import Answer, Cost, Limit, Payer, Sent, Spending, Spent
from cuvee.teach.ledger.store import Ledger
from cuvee.teach.ledger.stores import located

__all__ = ["Answer", "Cost", "Ledger", "Limit", "Payer", "Sent", "Spending", "Spent", "located"]
