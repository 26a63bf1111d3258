"""
wins

Why a peer is better than the extension in a row, where it is: what the report
says beside the figures.  By (metric, peer), or by metric for any peer; metrics
of a rate or of a part are named without it.
"""
import re

REASONS = {}


def reason(metric, peer):
    general = re.sub(r"_(\d+|relay|publisher|ticker)$", "", metric)
    for key in ((metric, peer), (general, peer), metric, general):
        if key in REASONS:
            return REASONS[key]
    return "Not explained yet."
