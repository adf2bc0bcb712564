"""Latency percentiles by hour. Its first attempts fail as a busy data source would: transiently."""

from collections import defaultdict

from towline_sdk.plugin import TransientError


def profile(config, inputs, context):
    if context["attempt"] <= config.get("failingAttempts", 0):
        print(f"attempt {context['attempt']}: the statistics service is busy")
        raise TransientError("the statistics service is busy", code="BUSY")
    seconds_by_hour = defaultdict(list)
    for hour, _, _, seconds in inputs["parse"]["requests"]:
        seconds_by_hour[hour].append(seconds)
    print(f"profiling {len(seconds_by_hour)} hours")
    return {"hours": [_hour(hour, sorted(seconds_by_hour[hour])) for hour in sorted(seconds_by_hour)]}


def _hour(hour, seconds):
    percentiles = {f"p{rank}Ms": round(1000 * _percentile(seconds, rank)) for rank in (50, 95, 99)}
    return {"hour": int(hour), "requests": len(seconds), **percentiles}


def _percentile(ordered, rank):
    return ordered[min(len(ordered) - 1, len(ordered) * rank // 100)]
