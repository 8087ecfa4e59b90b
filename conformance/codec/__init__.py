"""The codec role: a program that decodes and encodes over JSON lines, and its cases."""
