.PHONY: demo test evidence
demo: ; @python3 tools/run.py demo
test: ; @python3 tools/run.py test
evidence: ; @python3 tools/run.py evidence
