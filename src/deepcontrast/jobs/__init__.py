"""The verbs of the command line as functions: paths in, files out, sentences to say.

One file per verb: ``enhance``, ``train``, ``predict``, ``degrade``, ``evaluate``, ``info``. What they share:

    images      the images that paths stand for: listed, opened, written
    results     what lies in a result's folder: image, model, report, metrics.json
    say         the sentences
    hardware    what a run ran on
"""
