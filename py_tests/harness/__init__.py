"""What the tests share: servers and how they are started, clients of each protocol, words of applications, marks."""
