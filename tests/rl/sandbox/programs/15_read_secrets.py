# {"verdict": ["DENIED"]}
for path in ("/etc/shadow", "@SECRET@"):
    try:
        print(open(path).read())
    except OSError as error:
        print(error)
