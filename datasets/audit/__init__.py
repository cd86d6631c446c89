"""Simple models that see everything but the forgery: how far do they get?"""
