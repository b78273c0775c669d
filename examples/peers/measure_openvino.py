"""OpenVINO GenAI, measured as llmrt bench and llama-bench measure: greedy, random tokens, nothing reused.

usage: measure_openvino.py MODEL THREADS first-token|bench     one JSON object of metrics and values on stdout
"""

import json
import random
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as genai

MODEL, THREADS, WHAT = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PROPERTIES = {"INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}

scheduler = genai.SchedulerConfig()
scheduler.cache_size = 2
scheduler.enable_prefix_caching = False
scheduler.max_num_batched_tokens = 2048
pipeline = genai.ContinuousBatchingPipeline(MODEL, scheduler, "CPU", PROPERTIES)
randomness = random.Random(0)


def seconds(tokens, new, batch=1):
    """Of reading prompts of so many random tokens and generating so many new ones behind each."""
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
    prompts = [[randomness.randrange(1000, 40000) for _ in range(tokens)] for _ in range(batch)]
    tensors = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
    start = time.perf_counter()
    results = pipeline.generate(tensors, [config] * batch)
    taken = time.perf_counter() - start
    assert all(len(result.m_generation_ids[0]) == new for result in results)
    return taken


def decode(tokens, new, batch=1):
    """Tokens per second of what comes behind the first one of each sequence."""
    seconds(tokens, 4, batch)
    return batch * (new - 1) / (seconds(tokens, new, batch) - seconds(tokens, 1, batch))


if WHAT == "first-token":
    seconds(9, 1)
    print(json.dumps({}))
else:
    seconds(64, 4)
    found = {}
    for length in (512, 2048):
        seconds(length, 1)
        found[f"prefill {length}"] = length / seconds(length, 1)
    found["decode"] = decode(32, 129)
    found["decode @ 1024"] = decode(1024, 129)
    for batch in (8, 16):
        found[f"decode x {batch}"] = decode(128, 65, batch)
    print(json.dumps(found))
