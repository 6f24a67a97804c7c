"""At home in inspect_ai (extra `inspect`): its logs written and read, its models, tasks and scorers served."""
