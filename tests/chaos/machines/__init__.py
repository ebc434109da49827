"""Two worker machines: web, workers, stores and app in network namespaces of their own; one worker cut off, one killed.

make machines

 network.py   the machines and their cables
 lab.py       the processes on them
 app.py       the app under Stepwell, which writes down every execution
 trial.py     what is done to them, in order
 judge.py     what must hold afterwards (pure)
"""
